"""The page of a run's surest mistakes, and the figure of its surest decisions."""

import re

import pytest
from PIL import Image

from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation.clinical_evaluation import evaluate_clinically
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.decisions import choose_mistakes, tabulate_decisions
from melanoma_lab.reports.explained_images import (
    ImageExplainer,
    build_file_explainer,
)
from tests.support.example_cases import SLUGS, explain, manifest_of, table_of, write
from tests.support.pages import opened, pale, too_wide

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def table():
    return table_of()


@pytest.fixture(scope="module")
def manifest(table, tmp_path_factory):
    return manifest_of(table, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def chosen(table):
    found = Predictions(table)
    temperature = evaluate_clinically(found, "melanoma", sensitivity=0.9).temperature
    return choose_mistakes(tabulate_decisions(found.evaluated, temperature), "melanoma")


@pytest.fixture(scope="module")
def page_file(table, manifest, chosen, tmp_path_factory):
    first, second = chosen.missed["image_id"][:2]
    audit = {
        "label_conflicts": [[first, "nevus/<b>test</b>.jpg"]],
        "metadata_conflicts": [{"image_id": second, "label": "melanoma", "diagnosis": "nevus"}],
    }
    folder = tmp_path_factory.mktemp("run")
    return write(folder, table=table, manifest=manifest, audit=audit)


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out_of_a_screen(browser, page_file, width):
    with opened(browser, page_file, width) as page:
        assert too_wide(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_is_legible_and_photographs_keep_their_colours(browser, page_file, scheme):
    with opened(browser, page_file, 800, scheme) as page:
        assert pale(page) == []
        filters = "[...document.images].map(image => getComputedStyle(image).filter)"
        assert set(page.evaluate(filters)) == {"none"}
        loaded = page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
        assert loaded


def test_it_is_one_file_that_asks_for_nothing(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert set(re.findall(r'src="([^",]*)', text)) == {"data:image/jpeg;base64"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "Research use only: <strong>not a medical device" in text


def test_it_has_every_mistake_with_all_that_is_known(page_file, chosen):
    text = page_file.read_text(encoding="utf-8")
    cards = re.findall(r'<article class="mistake">(.*?)</article>', text, re.DOTALL)
    assert len(cards) == len(chosen.shown)
    for card, (_, row) in zip(cards, chosen.shown.iterrows(), strict=True):
        assert f"<dd>{row['image_id']}</dd>" in card
        assert f"<b>{row['y_true'].replace('_', ' ')}</b> predicted as" in card
        assert f"{row['predicted'].replace('_', ' ')} {100 * row['probability']:.0f}\xa0%" in card
        assert card.count("<img") == 2
    assert text.index("Missed: melanoma") < text.index("Other mistakes")
    assert sum("lower extremity" in card for card in cards) == sum(
        "<dt>age" in card for card in cards
    )
    assert "<dd>unknown</dd>" not in text
    assert "<dd>nan</dd>" not in text
    assert ", 2 images</dd>" in "".join(cards)
    assert "It has 3&#160;x&#160;3 cells" in text
    assert f"{len(chosen.shown)} mistakes in 90 images of test" in text


def test_doubtful_labels_are_told_first(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "2 of those shown have a label that the audit doubts" in text
    assert "another label: nevus/&lt;b&gt;test&lt;/b&gt;.jpg (left out)" in text
    assert "the metadata&#39;s diagnosis is nevus" in text
    assert text.count("Is the label right?") == 2


def test_missed_melanomas_that_the_operating_point_finds_are_said(page_file, table, chosen):
    threshold = evaluate_clinically(Predictions(table), "melanoma", sensitivity=0.9).point.threshold
    flagged = (chosen.missed["melanoma"] >= threshold).sum()
    assert flagged > 0
    text = page_file.read_text(encoding="utf-8")
    assert text.count("Reaches the threshold of the operating point") == flagged


def test_the_map_is_of_what_was_predicted(table, manifest, chosen, tmp_path):
    asked = {}
    write(tmp_path, table=table, manifest=manifest, explainer=explain(manifest, at=asked))
    for _, row in chosen.shown.iterrows():
        assert SLUGS[asked[row["image_id"]]] == row["predicted"]


def test_the_figure_is_the_same_every_time(table, manifest, page_file, tmp_path):
    write(tmp_path, table=table, manifest=manifest)
    made = (tmp_path / "plots" / "grad_cam.png").read_bytes()
    assert made == (page_file.parent / "plots" / "grad_cam.png").read_bytes()
    with Image.open(tmp_path / "plots" / "grad_cam.png") as image:
        assert min(image.size) > 700


def test_what_is_no_network_has_a_page_without_maps(table, manifest, tmp_path):
    explainer = explain(manifest, maps=False)
    page = write(
        tmp_path, table=table, manifest=manifest, explainer=explainer, why_no_maps="None here."
    )
    text = page.read_text(encoding="utf-8")
    assert "None here." in text
    assert "Grad-CAM" not in text
    assert text.count("<img") == text.count("<article")
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("error", [UserError("No Grad-CAM of mine: odd."), KeyError("odd")])
def test_a_network_that_cannot_be_looked_into_costs_the_maps_alone(
    table, manifest, tmp_path, error, capsys
):
    def refuse(*_):
        raise error

    explainer = ImageExplainer(explain(manifest).pixels, refuse, lambda: (3, 3))
    text = write(tmp_path, table=table, manifest=manifest, explainer=explainer).read_text()
    assert "No Grad-CAM" in text
    assert "odd" in text
    assert "No Grad-CAM" in capsys.readouterr().out
    assert text.count("<img") == text.count("<article")


def test_without_images_none_is_shown(table, manifest, tmp_path):
    text = write(tmp_path, table=table, manifest=manifest, explainer=None).read_text()
    assert "<img" not in text
    assert "No images are shown." in text
    assert not (tmp_path / "plots").exists()


def test_images_that_are_gone_cost_the_images_alone(table, manifest, tmp_path):
    gone = manifest.assign(path="nowhere.png")
    explainer = build_file_explainer(gone, 16, None)
    text = write(tmp_path, table=table, manifest=gone, explainer=explainer).read_text()
    assert "An image cannot be read again" in text
    assert "<img" not in text


def test_a_run_without_mistakes_and_one_without_a_melanoma_class(manifest, table, tmp_path):
    perfect = table.copy()
    for slug in SLUGS:
        perfect[f"prob/{slug}"] = (perfect["y_true"] == slug).astype("float32")
    page = write(tmp_path / "perfect", table=perfect, manifest=manifest)
    text = page.read_text(encoding="utf-8")
    assert "0 mistakes in 90 images" in text
    assert "not calibrated: there is no wrong decision" in text
    assert text.count("<p>None.</p>") == 2
    other = write(tmp_path / "other", table=table, manifest=manifest, positive_class=None)
    text = other.read_text(encoding="utf-8")
    assert "Missed" not in text
    assert "<h2>Mistakes</h2>" in text


def test_a_manifest_that_knows_little_is_enough(table, tmp_path):
    little = table[["image_id", "split"]]
    page = write(tmp_path, table=table, manifest=little, explainer=None)
    assert "<article" in page.read_text(encoding="utf-8")
