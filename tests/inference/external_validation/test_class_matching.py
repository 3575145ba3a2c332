"""Classes of a dataset among those of a model: by name, as said, or not at all."""

import pytest
from omegaconf import OmegaConf

from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.external_validation.evaluate import match_classes

pytestmark = pytest.mark.unit

MODEL = ("basal_cell_carcinoma", "melanoma", "nevus")


def test_names_match_however_they_are_spelt():
    found = match_classes(["Basal cell carcinoma", "NEVUS"], MODEL, {})
    assert found == {"Basal cell carcinoma": "basal_cell_carcinoma", "NEVUS": "nevus"}


def test_what_is_said_maps_joins_and_leaves_out():
    said = {"bcc": "Basal cell carcinoma", "naevus": "nevus", "scar": None}
    found = match_classes(["bcc", "naevus", "nevus", "scar"], MODEL, said)
    assert found == {
        "bcc": "basal_cell_carcinoma",
        "naevus": "nevus",
        "nevus": "nevus",
        "scar": None,
    }


def test_what_is_said_goes_before_names():
    assert match_classes(["nevus", "melanoma"], MODEL, {"nevus": None})["nevus"] is None


def test_a_class_that_the_dataset_left_out_may_be_said():
    said = {"seborrheic_keratosis": "nevus"}
    assert match_classes(["nevus"], MODEL, said, others=["seborrheic keratosis"])
    with pytest.raises(UserError, match="the dataset has no class seborrheic_keratosis"):
        match_classes(["nevus"], MODEL, said)


@pytest.mark.parametrize(
    ("classes", "said", "told"),
    [
        (
            ["nevus"],
            {"nevvus": None},
            r"evaluation\.classes: .* no class nevvus\. Did you mean nev",
        ),
        (["bcc"], {"bcc": "nevis"}, r"evaluation\.classes\.bcc: .* no class nevis\. Did you mean"),
        (["nevus"], {"nevus": None}, "leaves out all"),
    ],
)
def test_mistakes_are_named(classes, said, told):
    with pytest.raises(UserError, match=told):
        match_classes(classes, MODEL, said)


def test_what_is_missing_is_shown_with_a_line_to_type(composed):
    with pytest.raises(UserError) as error:
        match_classes(["nevus", "bcc", "Bowen's disease"], MODEL, {})
    told = str(error.value)
    assert told.startswith(
        "The model has no class called bcc and bowen_s_disease. It has basal_cell"
    )
    typed = "evaluation.classes={bcc: null, bowen_s_disease: null}"
    assert f"'{typed}'" in told
    assert composed("task=evaluate", typed).evaluation.classes == {
        "bcc": None,
        "bowen_s_disease": None,
    }
    assert "mapping=" not in told


@pytest.mark.parametrize("dataset", ["isic9", "isic9_verified"])
def test_the_shipped_mappings_are_named_and_are_enough(composed, dataset):
    slugs = {
        name: [each.replace(" ", "_") for each in composed(f"dataset={name}").dataset.classes]
        for name in (dataset, "ham10000")
    }
    for source, target in ((dataset, "ham10000"), ("ham10000", dataset)):
        option = f"{source.removesuffix('_verified')}_to_{target.removesuffix('_verified')}"
        classes = composed(f"dataset={source}").dataset.classes
        with pytest.raises(UserError, match=f"mapping={option} maps them"):
            match_classes(classes, slugs[target], {}, shipped=CONF_DIR / "mapping")
        said = composed("task=evaluate", f"mapping={option}").evaluation.classes
        others = ["seborrheic keratosis"] if source == "isic9_verified" else []
        found = match_classes(classes, slugs[target], said, others=others)
        assert set(found) == set(classes)
        assert found["melanoma"] == "melanoma"


def test_a_shipped_mapping_can_be_changed(composed):
    said = composed(
        "task=evaluate",
        "mapping=isic9_to_ham10000",
        "evaluation.classes={seborrheic_keratosis: null, scar: nevus}",
    ).evaluation.classes
    kept = OmegaConf.load(CONF_DIR / "mapping" / "isic9_to_ham10000.yaml").classes
    assert said == {**kept, "seborrheic_keratosis": None, "scar": "nevus"}
