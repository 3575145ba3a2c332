"""``evaluate``: a model that was trained here, on a dataset that shares some of its images."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import melanoma_lab as lab
from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation import metrics
from melanoma_lab.tracking.arm_runs import find_arm_runs
from tests.support.evaluation_cases import split_arrays
from tests.support.pictures import paint
from tests.support.processes import run_python
from tests.support.undrawn import undrawn_runs

pytestmark = pytest.mark.integration

NETWORK = ("architecture=compact_cnn", "architecture.filters=[4,8]", "architecture.blocks=[0,1]")
COLOURS = {"melanoma": (200, 90, 40), "nevus": (40, 200, 90), "vascular lesion": (90, 40, 200)}
MAPPING = "evaluation.classes={mel: melanoma, angioma: vascular lesion, scar: null}"
SITES = ("back", "face")


def write_table(root, rows):
    columns = ["image_id", "label", "lesion", "age", "sex", "site"]
    table = pd.DataFrame([(*row, "", "", "")[:6] for row in rows], columns=columns)
    table.to_csv(root / "manifest.csv", index=False)
    return root


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory):
    """Three classes of 12 lesions each."""
    root = tmp_path_factory.mktemp("trained_on")
    rows = []
    for k, (label, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            name = f"{label[0]}{i}.png"
            paint(root / name, colour, seed=100 * k + i)
            patient = (30 + i, ("female", "male")[i % 2], SITES[i % 2])
            rows.append((name, label, f"L{k}-{i}", *patient))
    return write_table(root, rows)


@pytest.fixture(scope="module")
def work(tmp_path_factory, trained_on, session_cache):
    """A folder with a run of images alone and one that knows patients."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch, undrawn_runs():
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(session_cache))
        arm = (
            *("dataset=csv", f"dataset.root={trained_on}", "dataset.image_size=16"),
            *("dataset.positive_class=melanoma", "training.epochs=1", *NETWORK),
        )
        runs = [
            lab.train(*arm, metadata, verbose=False) for metadata in ("seed=0", "metadata=patient")
        ]
    return folder, *runs


@pytest.fixture(autouse=True)
def _there(work, monkeypatch, session_cache):
    monkeypatch.chdir(work[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(session_cache))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, trained_on, work):
    """Other names of classes, one class more, none of nevus; some images are not new."""
    root = tmp_path_factory.mktemp("elsewhere")
    manifest = work[1].manifest.set_index("image_id")
    train, val, test = (
        manifest[(manifest["split"] == s) & (manifest["label"] == "melanoma")]
        for s in ("train", "val", "test")
    )
    rows = []
    for k, label in enumerate(("mel", "angioma", "scar")):
        for i in range(8):
            paint(root / f"{label}{i}.png", [*COLOURS.values()][k * 2 % 3], seed=1000 * k + 500 + i)
            rows.append((f"{label}{i}.png", label, f"{label}-{i}", 40, "male", "back"))
    shutil.copy(trained_on / train.index[0], root / "copy.png")
    with Image.open(trained_on / val.index[0]) as picture:
        picture.save(root / "encoded.jpg", quality=95)
    for i, name in enumerate(("lesion", "tested", "group")):
        paint(root / f"{name}.png", COLOURS["melanoma"], seed=900 + i)
    rows += [
        ("copy.png", "mel", "its own"),
        ("group.png", "mel", "its own"),
        ("encoded.jpg", "mel", ""),
        ("lesion.png", "mel", train["lesion"].iloc[1]),
        ("tested.png", "mel", test["lesion"].iloc[0]),
    ]
    return write_table(root, rows)


NOT_NEW = {
    "copy.png": ("train", "identical file"),
    "group.png": ("train", "same group as one of these"),
    "encoded.jpg": ("val", "near-identical image"),
    "lesion.png": ("train", "same lesion"),
    "tested.png": ("test", "same lesion"),
}


@pytest.fixture(scope="module")
def evaluated(work, elsewhere):
    _, run, _ = work
    return lab.evaluate(
        run, "dataset=csv", f"dataset.root={elsewhere}", MAPPING,
        "study=elsewhere", verbose=False,
    )  # fmt: skip


def test_what_the_model_has_seen_is_left_out(evaluated):
    manifest = evaluated.manifest.set_index("image_id")
    assert not manifest.index.str.startswith("scar").any()
    known = manifest[manifest["known_as"] != "new"]
    found = dict(
        zip(known.index, zip(known["known_as"], known["known_by"], strict=True), strict=True)
    )
    assert found == NOT_NEW
    table = evaluated.predictions.set_index("image_id")
    assert set(table.index) == set(manifest.index)
    judged = table[table["split"] == "test"]
    assert set(judged.index) == {*(f"{c}{i}.png" for c in ("mel", "angioma") for i in range(8)),
                                 "tested.png"}  # fmt: skip
    assert dict(table["split"].drop(judged.index)) == {
        name: role for name, (role, _) in NOT_NEW.items() if role != "test"
    }
    links = pd.read_csv(evaluated.artifact("overlap.csv"))
    assert set(links["image_id"]) == set(NOT_NEW) - {"group.png"}
    assert evaluated.metrics["images"] == 17
    assert evaluated.metrics["images_seen"] == 4


def test_figures_are_of_what_is_left_and_nothing_is_chosen_anew(work, evaluated):
    _, run, _ = work
    arrays = split_arrays(evaluated.predictions, "test")
    found = evaluated.metrics
    assert found["test/accuracy"] == pytest.approx(metrics.accuracy(*arrays))
    assert found["test/balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy(*arrays))
    low, high = (found[f"test/balanced_accuracy_{end}"] for end in ("low", "high"))
    assert low <= found["test/balanced_accuracy"] <= high
    assert np.isnan(found["test/sensitivity/nevus"])
    assert evaluated.tags["absent/test"] == "nevus"
    assert found["test/melanoma_auroc"] == pytest.approx(metrics.auroc(*arrays)[0])
    for chosen in ("temperature", "operating_point_threshold"):
        assert found[chosen] == run.metrics[chosen]
    assert {"test/calibrated_ece", "test/operating_point_sensitivity"} <= set(found)
    assert not any(name.startswith(("train/", "val/")) for name in found)
    assert "generalisation_gap" not in found
    points = json.loads(evaluated.artifact("operating_points.json").read_text())
    assert points[0]["test"]["n_images"] == 17


def test_it_is_tracked_as_what_it_is(work, elsewhere, evaluated, trained_on):
    _, run, _ = work
    client = mlflow.MlflowClient(run.uri)
    assert client.get_run(evaluated.run_id).info.status == "FINISHED"
    expected = {
        "study": "elsewhere",
        "evaluation": "external",
        "evaluated_run": run.run_id,
        "evaluated_arm": run.arm,
        "dataset": "csv",
        "protocol": "grouped",
        "overlap": "4 of 21 images left out",
    }
    assert expected.items() <= evaluated.tags.items()
    assert evaluated.tags["dataset_digest"] != run.tags["dataset_digest"]
    assert (evaluated.arm, evaluated.seed) == (run.arm, 0)
    assert evaluated.params["dataset.root"] == str(elsewhere)
    assert evaluated.params["dataset.image_size"] == "16"
    assert evaluated.params["evaluation.classes.angioma"] == "vascular_lesion"
    assert evaluated.params["evaluation.classes.scar"] == "null"
    assert not any(name.startswith(("architecture", "training")) for name in evaluated.params)
    config = yaml.safe_load(evaluated.artifact("config.yaml").read_text())
    assert config["evaluation"]["classes"]["mel"] == "melanoma"
    plots = {path.stem for path in evaluated.artifact("plots").iterdir()}
    assert plots >= {"confusion_matrix", "roc_curves", "reliability_diagram", "operating_curve"}
    assert evaluated.artifact("audit.json").is_file()
    assert find_arm_runs(client, "elsewhere") == []
    with pytest.raises(
        UserError, match=f"evaluated a model and trained none; the evaluated model: {run.run_id}"
    ):
        lab.predict(evaluated, trained_on, verbose=False)


def evaluate(run, root, *overrides, mapping=MAPPING):
    words = ["dataset=csv", f"dataset.root={root}", *([mapping] if mapping else []), *overrides]
    with undrawn_runs():
        return lab.evaluate(run, *words)


def test_kept_on_demand_and_marked(work, elsewhere, evaluated, capsys):
    again = evaluate(work[1], elsewhere, "evaluation.overlap=keep")
    told = " ".join(capsys.readouterr().out.split())
    assert "metrics are too optimistic" in told
    assert told.index("metrics are too optimistic") < told.index("balanced accuracy")
    assert again.tags["protocol"] == "leaking"
    assert again.tags["overlap"] == "4 of 21 images kept"
    assert again.metrics["images"] == 21
    assert again.tags["fingerprint"] != evaluated.tags["fingerprint"]
    manifest = again.manifest.set_index("image_id")
    assert manifest.loc["copy.png", "known_as"] == "train"


def test_the_overlap_is_told_before_any_figure(work, elsewhere, capsys):
    evaluate(work[1], elsewhere)
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "4 of 21 images overlap with the model's training or validation images (3 train, 1 val): "
        "1 identical file, 1 near-identical image, 1 same lesion, 1 same group as one of these. "
        "They are left out." in told
    )
    assert "lesions in its own test split, never seen but from the same source: 1 images" in told
    assert told.index("left out.") < told.index("balanced accuracy")
    assert "its own test split" in told
    assert "'angioma' (8 images) are mapped to the model's vascular_lesion." in told
    assert "'scar' (8 images) are left out" in told
    assert "test has no nevus: its macro means are over 2 of 3 classes." in told
    assert "of 17 images" in told
    assert "look unlike the training images" in told
    assert "Research use only: not a medical device." in told


def test_its_own_dataset_leaves_its_own_test_split(work, trained_on):
    _, run, _ = work
    again = evaluate(run, trained_on, mapping=None)
    own = run.predictions[run.predictions["split"] == "test"].set_index("image_id").sort_index()
    found = again.predictions.set_index("image_id").sort_index()
    assert set(found.index[found["split"] == "test"]) == set(own.index)
    columns = [name for name in own if name.startswith("prob/")]
    np.testing.assert_allclose(found.loc[own.index, columns], own[columns], atol=1e-5)
    for name in ("test/balanced_accuracy", "test/operating_point_sensitivity", "test/macro_auroc"):
        assert again.metrics[name] == pytest.approx(run.metrics[name], nan_ok=True), name


def test_what_patients_are_is_taken_from_the_dataset(work, trained_on, elsewhere, capsys):
    _, _, patient = work
    again = evaluate(patient, trained_on, mapping=None)
    own = patient.predictions.set_index("image_id").sort_index()
    found = again.predictions.set_index("image_id").sort_index()
    columns = [name for name in own if name.startswith("prob/")]
    np.testing.assert_allclose(found[columns], own[columns], atol=1e-5)
    table = pd.read_csv(elsewhere / "manifest.csv", dtype=str, keep_default_na=False)
    (elsewhere / "bare.csv").write_text(table[["image_id", "label"]].to_csv(index=False))
    (elsewhere / "else.csv").write_text(table.replace("back", "toe").to_csv(index=False))
    with pytest.raises(
        UserError,
        match=r"takes age, sex, site beside the image, and dataset=csv has no age of its patients",
    ):
        evaluate(patient, elsewhere, "dataset.table=bare.csv")
    capsys.readouterr()
    evaluate(patient, elsewhere, "dataset.table=else.csv")
    told = " ".join(capsys.readouterr().out.split())
    assert "have a site that no training image has (toe): it counts as missing" in told


@pytest.fixture
def elsewhere_to_work(tmp_path, monkeypatch):
    """A folder where nothing is tracked yet; commands are typed there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_that_is_alone_says_that_overlap_was_not_looked_for(
    work, elsewhere, trained_on, elsewhere_to_work, capsys
):
    """Copied to where its run is not tracked; a folder that is named was trained on, all of it."""
    _, run, _ = work
    client = mlflow.MlflowClient(run.uri)
    (model,) = [
        each
        for each in client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
        if each.source_run_id == run.run_id
    ]
    shutil.copytree(model.artifact_location.removeprefix("file://"), elsewhere_to_work / "model")
    alone = evaluate("model", elsewhere)
    assert "Overlap with the training images was not checked" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (alone.tags["protocol"], alone.tags["overlap"]) == ("unknown", "not looked for")
    assert alone.metrics["images"] == 21
    told_where = evaluate("model", elsewhere, f"evaluation.trained_on={trained_on}")
    seen = told_where.manifest.set_index("image_id")["known_by"]
    assert dict(seen[seen != ""]) == {
        "copy.png": "identical file",
        "group.png": "same group as one of these",
        "encoded.jpg": "near-identical image",
    }


def test_training_images_that_have_moved_are_missed_aloud(
    work, elsewhere, trained_on, tmp_path, capsys
):
    _, run, _ = work
    moved = tmp_path / "moved"
    shutil.move(trained_on, moved)
    try:
        found = evaluate(run, elsewhere)
        told = " ".join(capsys.readouterr().out.split())
        assert "Near-identical images were not searched among 36 of the 36 images" in told
        assert "evaluation.trained_on=DIR" in told
        kinds = set(found.manifest["known_by"]) - {""}
        assert kinds == {"identical file", "same lesion", "same group as one of these"}
        with pytest.raises(UserError, match=r"trained_on=.*: has none of the 36 images"):
            evaluate(run, elsewhere, f"evaluation.trained_on={elsewhere}")
        again = evaluate(run, elsewhere, f"evaluation.trained_on={moved}")
        assert "near-identical image" in set(again.manifest["known_by"])
    finally:
        shutil.move(moved, trained_on)


def test_nothing_is_left_where_all_has_been_seen(work, trained_on, tmp_path):
    _, run, _ = work
    train = run.manifest.query("split == 'train'")
    rows = [(row.image_id, row.label, "") for row in train.itertuples()]
    for name, *_ in rows:
        shutil.copy(trained_on / name, tmp_path / name)
    with pytest.raises(UserError, match=r"has seen all \d+ images.*evaluation\.overlap=keep"):
        evaluate(run, write_table(tmp_path, rows), mapping=None)


@pytest.mark.slow
def test_mistakes_are_told_without_tensorflow(work, elsewhere, tmp_path):
    _, run, _ = work
    script = """
import sys
from melanoma_lab.__main__ import main
mistakes = [
    [],
    ["model=x"],
    ["model=RUN", "evaluation.trained_on=nowhere"],
    ["model=bare.keras"],
    ["model=RUN", "split=kfold"],
    ["model=RUN", "evaluation.tta=flips"],
    ["model=RUN", "split=predefined"],
    ["model=RUN"],
    ["model=RUN", "evaluation.classes={mell: null}"],
]
for words in mistakes:
    sys.argv[1:] = ["evaluate", "dataset=csv", "dataset.root=ROOT", *words]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, (words, end.code)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    kept = next(Path.cwd().rglob("model.keras"))
    shutil.copy(kept, "bare.keras")
    done = run_python("-c", script.replace("RUN", run.run_id).replace("ROOT", str(elsewhere)))
    assert done.returncode == 0, done.stderr
    told = (
        "model is not set; add model=",
        "neither a file or folder here nor a run",
        "evaluation.trained_on=nowhere: no such folder",
        "a bare .keras file does not contain the names of its classes",
        "split=kfold: evaluate does not split a dataset",
        "evaluation.tta: is fixed when a model is trained",
        "split=predefined: this dataset was published without a test split",
        "no class called angioma, mel and scar. It has melanoma, nevus and vascular_lesion",
        "evaluation.classes: the dataset has no class mell. Did you mean mel?",
    )
    for line, expected in zip(done.stderr.splitlines(), told, strict=True):
        assert expected in line
