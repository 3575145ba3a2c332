"""Every key is described: with a sentence, its type and its default."""

import pytest

from melanoma_lab.config.descriptions import (
    KeyDescription,
    describe_keys,
    describe_option,
    list_options,
)
from melanoma_lab.config.schema import Config
from melanoma_lab.registry import OPTIONS

pytestmark = pytest.mark.unit

EVERY = [(group, name) for group, names in list_options().items() for name in names]


def described(keys):
    return {key.key: key for key in keys}


def test_every_option_of_every_group_is_listed():
    assert {group for group, _ in EVERY} >= {group for group, _ in OPTIONS}
    assert ("augmentation/before", "none") in EVERY
    assert ("finetuning", "staged_quick") in EVERY  # a file without a class of its own


def test_every_key_of_a_command_has_a_sentence():
    assert [key.key for key in describe_keys(Config) if not key.text] == []


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_every_key_of_an_option_has_a_sentence(group, name):
    _, keys = describe_option(group, name)
    assert [key.key for key in keys if not key.text] == []
    assert all(key.key.startswith(f"{group.replace('/', '.')}.") for key in keys)


def test_types_and_defaults_are_those_of_the_schema():
    keys = described(describe_keys(Config))
    expected = {
        "seed": ("whole number", "0"),
        "study": ("text", "ablation"),
        "reference": ("text or null", "null"),
        "audit.strict": ("true or false", "false"),
        "training.epoch": ("originals, balanced", "originals"),
        "training.patience": ("whole number or null", "null"),
        "formats": ("list: saved_model, onnx, litert", "[saved_model]"),
        "demo.port": ("whole number", "8910"),
    }
    assert {k: (keys[k].type, keys[k].default) for k in expected} == expected
    assert not [key for key in keys if key.startswith("optimizer")]  # a group of options


def test_an_option_has_the_defaults_of_its_file():
    _, ham = describe_option("dataset", "ham10000")
    assert described(ham)["dataset.image_size"].default == "128"
    assert described(ham)["dataset.diagnoses"].default.startswith("{akiec: actinic keratosis, ")
    _, quick = describe_option("finetuning", "staged_quick")
    assert described(quick)["finetuning.head_epochs"].default == "1"
    _, sgd = describe_option("optimizer", "sgd")
    assert described(sgd)["optimizer.learning_rate"] == KeyDescription(
        "optimizer.learning_rate",
        "number",
        "0.01",
        "Size of the steps: the highest learning rate of the schedule.",  # of the base class
    )


def test_sections_within_an_option_are_described():
    _, csv = describe_option("dataset", "csv")
    assert described(csv)["dataset.columns.age"].text.startswith("The patient's age in years")
