"""Every preset composes, names what it asks, and differs from its reference."""

import pytest

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.registry import OPTIONS

pytestmark = pytest.mark.unit

PRESETS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
DATASETS = sorted(path.stem for path in (CONF_DIR / "dataset").glob("*.yaml"))


#: Every preset with one dataset, and every dataset with some presets.
SOME = [(preset, DATASETS[i % len(DATASETS)]) for i, preset in enumerate(PRESETS)]


@pytest.mark.parametrize(("preset", "dataset"), SOME)
def test_a_preset_composes_with_every_dataset(composed, preset, dataset):
    config = composed(f"+experiment={preset}", f"dataset={dataset}")
    assert config.dataset.name == dataset
    assert config.reference in {None, *PRESETS}
    assert config.reference != preset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_opens_with_its_question_and_command(preset):
    text = (CONF_DIR / "experiment" / f"{preset}.yaml").read_text()
    comment = [line for line in text.splitlines() if line.startswith("#")]
    assert "?" in "".join(comment) or preset == "baseline"
    assert f"+experiment={preset}" in "".join(comment)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_differs_from_its_reference_in_one_group(composed, preset):
    config = composed(f"+experiment={preset}")
    if config.reference is None:
        return
    reference = composed(f"+experiment={config.reference}")
    groups = {group for group, _ in OPTIONS} - {"dataset", "split"} | {"evaluation"}
    different = [g for g in groups if getattr(config, g) != getattr(reference, g)]
    assert len(different) == 1
    assert config.training == reference.training


def test_the_seeds_presets_are_there():
    assert {"baseline", "dropout", "augmented", "dropout_sgd"} <= set(PRESETS)
