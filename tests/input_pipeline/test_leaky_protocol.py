"""The leaky protocol leaks in val, not in test, and a run on it says so."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lab.commands.leaky_protocol import prepare_leaky_dataset
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.prepare import prepare_data
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two classes; one test image of each is a copy of a training image."""
    root = tmp_path_factory.mktemp("published")
    for k, label in enumerate(("melanoma", "nevus")):
        for i in range(8):
            paint(root / "Train" / label / f"{i}.png", (200 - 90 * k, 90, 40), seed=100 * k + i)
        for i in range(3):
            paint(root / "Test" / label / f"t{i}.png", (200 - 90 * k, 90, 40), seed=900 + 9 * k + i)
        copied = (root / "Train" / label / "0.png").read_bytes()
        (root / "Test" / label / "t0.png").write_bytes(copied)
    return root


@pytest.fixture(scope="module")
def prepared(published, composed, session_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seed") / "out"
    config = composed(
        "task=leaky_protocol",
        "dataset=folder",
        f"dataset.root={published}",
        "dataset.image_size=24",
        f"output={folder}",
        f"cache={session_cache}",
    )
    with console.capture() as printed:
        assert prepare_leaky_dataset(config) == folder
    return folder, printed.get()


@pytest.fixture(scope="module")
def written(prepared):
    folder, _ = prepared
    return folder


def test_the_next_command_names_a_preset_that_there_is(prepared):
    folder, printed = prepared
    (preset,) = re.findall(r"\+experiment=(\w+)", printed)
    assert (CONF_DIR / "experiment" / f"{preset}.yaml").is_file()
    assert f"dataset.root={folder}" in "".join(printed.split())


@pytest.fixture(scope="module")
def manifest(written):
    return pd.read_csv(written / "manifest.csv", keep_default_na=False)


def test_every_class_has_five_hundred_images_a_fifth_of_them_for_validation(manifest):
    counts = pd.crosstab(manifest["label"], manifest["split"])
    assert (counts["train"] + counts["val"]).to_dict() == {"melanoma": 500, "nevus": 500}
    assert counts["val"].sum() == 200
    assert set(manifest["protocol"]) == {"leaking"}


def test_copies_of_one_image_are_on_both_sides(manifest):
    trained = set(manifest.loc[manifest["split"] == "train", "original"])
    assert manifest.loc[manifest["split"] == "val", "original"].isin(trained).all()


def test_the_test_images_are_those_that_no_training_image_shows(manifest, published):
    test = manifest[manifest["split"] == "test"]
    assert sorted(test["original"]) == [
        f"Test/{label}/t{i}.png" for label in ("melanoma", "nevus") for i in (1, 2)
    ]
    assert set(test["lesion"]).isdisjoint(manifest.loc[manifest["split"] != "test", "lesion"])


def test_every_file_of_the_manifest_is_there_and_nothing_else(manifest, written):
    files = {p.relative_to(written).as_posix() for p in written.rglob("*.jpg")}
    assert files == set(manifest["image_id"])
    assert len(manifest) == len(files)
    assert not list(written.parent.glob(".*"))


def test_copies_are_turned_originals(manifest, written):
    def pixels(image_id):
        return np.asarray(Image.open(written / image_id), dtype=float)

    family = manifest[manifest["original"] == "Train/nevus/1.png"]
    first = pixels(family["image_id"].iloc[0])
    changed = [np.abs(pixels(i) - first).mean() > 3 for i in family["image_id"].iloc[1:]]
    assert 0.4 < np.mean(changed) < 0.95  # seven of ten are turned


@pytest.mark.slow
def test_a_run_on_it_is_leaking_and_its_test_split_is_honest(written, composed, session_cache):
    config = composed(
        "+experiment=leaky_protocol", f"dataset.root={written}", "dataset.image_size=24"
    )
    data = prepare_data(config, cache=session_cache, threads=2)
    assert data.protocol == "leaking"
    assert "both sides of the split" in data.unresolved
    assert data.findings.test_images_leaking == []
    assert len(data.findings.val_images_leaking) == 200
    assert data.manifest["split"].value_counts().to_dict() == {"train": 800, "val": 200, "test": 4}


def test_the_preset_names_its_dataset_and_no_reference(composed):
    config = composed("+experiment=leaky_protocol")
    assert (config.dataset.name, config.split.name) == ("leaky_protocol", "predefined")
    assert config.reference is None


def test_a_folder_that_is_there_is_not_written_over(composed, published, tmp_path):
    config = composed(
        "task=leaky_protocol", "dataset=folder", f"dataset.root={published}", f"output={tmp_path}"
    )
    with pytest.raises(UserError, match="exists already"):
        prepare_leaky_dataset(config)


def test_a_dataset_without_train_and_test_is_refused(composed, tree, tmp_path):
    config = composed(
        *("task=leaky_protocol", "dataset=folder", f"dataset.root={tree}"),
        f"output={tmp_path / 'new'}",
    )
    with pytest.raises(UserError, match="published without a division into Train and Test"):
        prepare_leaky_dataset(config)
    assert not (tmp_path / "new").exists()
