"""`predict` says which files the network was trained on, was chosen by, or was tested on."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

import melanoma_lab as lab
from melanoma_lab.config.schema import Tracking
from melanoma_lab.data.cache import compute_file_digest
from melanoma_lab.inference.known_images import KnownFiles, load_run_manifest
from melanoma_lab.inference.predict import predict_to_file
from melanoma_lab.tracking.arm_runs import SEEDS_TAG
from melanoma_lab.tracking.run_reader import read_run
from melanoma_lab.tracking.tracker import connect

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def work(tmp_path_factory, train_tiny):
    """A folder with a run in it."""
    folder = tmp_path_factory.mktemp("work")
    return folder, train_tiny(folder)


@pytest.fixture
def predict(work, composed, monkeypatch, capsys):
    """Predict with overrides; returns the column ``seen`` by image, and what is said."""
    monkeypatch.chdir(work[0])

    def command(**keys):
        path = predict_to_file(composed("task=predict", *(f"{k}='{v}'" for k, v in keys.items())))
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert list(table)[-1] == "seen"
        seen = dict(zip(table["image_id"], table["seen"], strict=True))
        return seen, " ".join(capsys.readouterr().out.split())

    return command


@pytest.fixture
def manifest(work):
    return pd.read_csv(work[1].artifact("manifest.csv"), dtype=str).set_index("image_id")


def test_images_of_the_run_have_their_split(work, tree, predict, manifest):
    seen, told = predict(model=work[1].run_id, images=tree)
    assert seen == dict(manifest["split"])
    n = manifest["split"].value_counts()
    assert min(n["train"], n["val"], n["test"]) > 0
    assert (
        f"{n['train']} of 27 images were used to train the network, {n['val']} to select it "
        "(column seen): its predictions for them are better than for new images. Leave them out "
        f"of any metric. {n['test']} of 27 images are of its run's own test split."
    ) in told
    assert "not known" not in told


def test_names_do_not_matter_and_new_images_are_none_of_the_runs(
    work, tree, predict, manifest, tmp_path
):
    trained = manifest.index[manifest["split"] == "train"][0]
    shutil.copy(tree / trained, tmp_path / "renamed.png")
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / trained.replace("/", " "))
    seen, told = predict(model=work[1].run_id, images=tmp_path)
    assert seen == {"renamed.png": "train", trained.replace("/", " "): "no"}
    assert "1 of 2 images were used to train the network, 0 to select it" in told
    assert "1 of 2 images are not of its run, judged by file content and ISIC ids." in told
    assert "resized or re-encoded are not recognised: evaluate compares the image content." in told


def test_python_says_the_same(work, tree, predict, manifest):
    table = lab.predict(work[1], tree, verbose=False)
    assert dict(zip(table["image_id"], table["seen"], strict=True)) == dict(manifest["split"])


def model_folder(run):
    client = mlflow.MlflowClient(run.uri)
    (model,) = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    return Path(model.artifact_location.removeprefix("file://"))


def test_it_is_not_known_where_the_run_is_not_there(work, tree, predict, manifest, tmp_path):
    folder = model_folder(work[1])
    network = shutil.copy(folder / "data" / "model.keras", tmp_path)
    nowhere = f"sqlite:///{tmp_path}/none.db"
    for keys in ({"model": network}, {"model": folder, "tracking.uri": nowhere}):
        seen, told = predict(images=tree, **keys)
        assert set(seen.values()) == {"not known"}
        assert "Whether the network was trained on these images is not known (column seen)" in told
        assert "images are not of its run" not in told
    assert not Path(f"{tmp_path}/none.db").exists()
    seen, _ = predict(images=tree, model=folder)  # its folder names the run, which is here
    assert seen == dict(manifest["split"])


@pytest.mark.parametrize("left", [None, "image_id,split\nmelanoma/0.png,train\n"])
def test_it_is_not_known_where_the_runs_images_are_not(work, tree, predict, left):
    (path,) = work[0].glob(f"mlruns/*/{work[1].run_id}/artifacts/manifest.csv")
    kept = path.read_bytes()
    path.unlink()
    try:
        if left:
            path.write_text(left)
        seen, _ = predict(model=work[1].run_id, images=tree)
    finally:
        path.write_bytes(kept)
    assert set(seen.values()) == {"not known"}


TABLE = pd.DataFrame(
    [
        ("ISIC_0000001.jpg", "test", "same", "nevus"),
        ("b/ISIC_0000002.jpg", "train", "same", "melanoma"),
        ("c.jpg", "val", "other", "nevus"),
        ("d.jpg", "test", "", "nevus"),
    ],
    columns=["image_id", "split", "digest", "label"],
)


@pytest.mark.parametrize(
    ("image_id", "digest", "role"),
    [
        ("x.jpg", "same", "train"),  # of a file that is in two splits, what weighs most
        ("x.jpg", "other", "val"),
        ("isic_0000001.png", "new", "test"),  # saved anew under the archive's name
        ("deep/ISIC_0000002(1).png", "new", "train"),
        ("ISIC_0000001.jpg", "other", "val"),
        ("c.jpg", "new", "new"),  # many files are called 1.jpg
        ("d.jpg", "", "new"),
    ],
)
def test_files_are_known_by_their_bytes_or_their_archive_id(image_id, digest, role):
    assert KnownFiles.of(TABLE).role_of(image_id, digest) == role


def test_an_ensemble_has_seen_what_any_member_has(tmp_path):
    where = Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = connect(where, "study").result()

    def record(splits, tags, config):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        table = pd.DataFrame({"image_id": list("abcd"), "split": splits})
        table.to_csv(folder / "manifest.csv", index=False)
        OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
        with tracker.run("run", tags, {}) as run_id:
            tracker.log_folder(folder)
        return run_id

    folds = [["train", "val", "test", "test"], ["test", "test", "val", "test"]]
    members = [record(splits, {}, {}) for splits in folds]
    ensembles = [
        record(["test"] * 4, {SEEDS_TAG: "0"}, {"ensemble": {"members": of}})
        for of in (members, [*members, "0" * 32])
    ]
    whole, lacking = (
        load_run_manifest(read_run(run_id, where, tmp_path), where, tmp_path)
        for run_id in ensembles
    )
    assert list(whole["split"]) == ["train", "val", "val", "test"]
    assert lacking is None  # a member's images are not known


def test_digests_are_those_of_the_manifest(work, tree, manifest):
    image_id = manifest.index[0]
    assert compute_file_digest(str(tree / image_id)) == manifest["digest"][image_id]
    assert compute_file_digest(str(tree)) == ""
