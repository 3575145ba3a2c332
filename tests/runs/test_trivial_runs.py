"""Trivial classifiers are tracked like any arm, without TensorFlow."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import Arm
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.evaluation.clinical_evaluation import evaluate_clinically
from melanoma_lab.evaluation.metrics import compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.runs.run_lock import RunLock
from melanoma_lab.tracking.locations import identify_study
from tests.support.pictures import paint
from tests.support.processes import run_python
from tests.support.undrawn import undrawn_runs

pytestmark = pytest.mark.integration

PRESETS = ("majority", "colour_histogram", "source_only")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, told apart by colour and, all but one, by source."""
    root = tmp_path_factory.mktemp("sources")
    rows = []
    for k, (label, n) in enumerate((("melanoma", 18), ("nevus", 12), ("keratosis", 10))):
        for i in range(n):
            paint(root / f"{label}{i}.png", np.roll([200, 90, 40], k), seed=100 * k + i)
            source = "clinic" if label == "melanoma" else "archive"
            rows.append((f"{label}{i}.png", label, source))
    pd.DataFrame(rows, columns=["image_id", "label", "source"]).to_csv(
        root / "manifest.csv", index=False
    )
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs are tracked; one database, because a new one takes seconds."""
    return tmp_path_factory.mktemp("trivial")


@pytest.fixture
def fit(composed, root, folder, session_cache, monkeypatch):
    """Fit a trivial classifier with overrides; returns its MLflow run and its predictions."""
    monkeypatch.chdir(folder)

    def run(preset, *overrides, skip_finished=True, name=None):
        config = composed(
            f"+experiment={preset}",
            *("dataset=csv", f"dataset.root={root}", "dataset.image_size=16"),
            *("dataset.positive_class=melanoma", f"cache={session_cache}"),
            *overrides,
        )
        # One run of each preset is drawn, for the test that looks at all that a run has.
        with undrawn_runs() if overrides else nullcontext():
            run_id = train_arm(config, Arm(name or preset, preset), skip_finished=skip_finished)
        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        table = Predictions.read(Path(client.download_artifacts(run_id, "predictions.csv"))).table
        return client.get_run(run_id), table

    return run


@pytest.mark.parametrize("preset", PRESETS)
def test_a_trivial_arm_is_tracked_like_any(fit, preset):
    run, table = fit(preset)
    assert run.info.status == "FINISHED"
    assert run.data.tags["trivial"] == "true"
    assert {"arm", "seed", "fold", "fingerprint", "split_hash", "outcome"} <= run.data.tags.keys()
    assert run.data.params["architecture.name"] == preset
    judgement = evaluate_clinically(Predictions(table), "melanoma", sensitivity=0.9)
    expected = compute_run_metrics(Predictions(table), "melanoma") | judgement.metrics()
    assert {name: run.data.metrics[name] for name in expected} == expected
    assert run.data.metrics["optimizer_steps"] == run.data.metrics["best_epoch"] == 0
    assert run.data.metrics["fit_seconds"] > 0
    artifacts = Path(run.info.artifact_uri)
    found = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*.*")}
    assert found == {
        "audit.json",
        "calibration.json",
        "config.yaml",
        "manifest.csv",
        "mistakes.html",
        "operating_points.json",
        "predictions.csv",
        "subgroups.csv",
        "plots/class_distribution.png",
        "plots/confusion_matrix.png",
        "plots/roc_curves.png",
        "plots/precision_recall_curves.png",
        "plots/reliability_diagram.png",
    }
    page = (artifacts / "mistakes.html").read_text(encoding="utf-8")
    assert "No Grad-CAM map: the model is not a network." in page
    n_mistakes = page.count("<article")
    assert page.count("<img") == n_mistakes
    assert (n_mistakes == 0) == (run.data.metrics["test/accuracy"] == 1)


def test_majority_answers_with_the_training_frequencies(fit):
    run, table = fit("majority")
    train = table[table["split"] == "train"]
    for label, share in train["y_true"].value_counts(normalize=True).items():
        np.testing.assert_allclose(table[f"prob/{label}"], share, rtol=1e-6)
    assert run.data.metrics["test/balanced_accuracy"] == pytest.approx(1 / 3)
    assert run.data.metrics["parameters"] == 3
    assert run.data.tags["outcome"] == "at_chance"


def test_colours_tell_coloured_classes_apart(fit):
    run, _ = fit("colour_histogram")
    assert run.data.metrics["test/balanced_accuracy"] == 1
    assert run.data.metrics["parameters"] == 3 * (8**3 + 1)


def test_the_operating_point_is_where_it_was_asked_for(fit, capsys):
    few, _ = fit("colour_histogram", "evaluation.sensitivity=0.3")
    said = " ".join(capsys.readouterr().out.split())
    assert "operating point: melanoma if its probability is at least" in said
    assert "(chosen on val for a sensitivity of 30 %); test sensitivity" in said
    most, _ = fit("colour_histogram")
    name = "operating_point_threshold"
    assert few.data.metrics[name] > most.data.metrics[name]
    assert few.data.tags["fingerprint"] != most.data.tags["fingerprint"]
    kept = Path(few.info.artifact_uri) / "operating_points.json"
    assert json.loads(kept.read_text())[0]["target_sensitivity"] == 0.3


def test_source_only_knows_no_more_than_the_source(fit):
    run, table = fit("source_only")
    assert run.data.metrics["test/melanoma_sensitivity"] == 1
    assert run.data.metrics["test/sensitivity/nevus"] == 1
    assert run.data.metrics["test/sensitivity/keratosis"] == 0
    assert len(table.filter(like="prob/").drop_duplicates()) == 2
    assert run.data.metrics["parameters"] == 2 * 3


def test_source_only_refuses_a_dataset_without_sources(fit, tree, folder):
    with pytest.raises(UserError, match="does not name the sources of its images"):
        fit("source_only", "dataset=folder", f"dataset.root={tree}", "study=refused")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("refused")
    assert experiment is None or client.search_runs([experiment.experiment_id]) == []


def test_metadata_only_tells_what_the_patients_do_and_keeps_how(fit, root, tmp_path):
    table = pd.read_csv(root / "manifest.csv")
    for path in root.glob("*.png"):
        shutil.copy(path, tmp_path)
    told = table.assign(sex=np.where(table["label"] == "melanoma", "m", "f"))
    told.to_csv(tmp_path / "manifest.csv", index=False)
    more = (f"dataset.root={tmp_path}", "metadata.columns=[sex]")
    run, found = fit("metadata_only", *more)
    assert run.data.metrics["test/melanoma_sensitivity"] == 1
    assert len(found.filter(like="prob/").drop_duplicates()) == 2
    assert run.data.metrics["parameters"] == 3 * (2 + 1)
    kept = Path(run.info.artifact_uri) / "metadata.json"
    assert json.loads(kept.read_text()) == {"sex": {"values": ["f", "m"], "missing": False}}
    with pytest.raises(UserError, match="has no sex of its patients"):
        fit("metadata_only", "metadata.columns=[sex]")


@pytest.mark.parametrize("preset", PRESETS)
def test_class_weights_count(fit, preset):
    _, plain = fit(preset)
    _, weighted = fit(preset, "balancing=class_weight")
    assert not np.allclose(plain["prob/keratosis"], weighted["prob/keratosis"])
    if preset == "majority":
        np.testing.assert_allclose(weighted.filter(like="prob/"), 1 / 3, rtol=1e-6)


def test_no_seed_changes_a_trivial_arm(fit):
    for preset in PRESETS:
        (first, one), (second, other) = fit(preset), fit(preset, "seed=1")
        assert first.info.run_id != second.info.run_id
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_class_without_training_images_gets_nothing(fit, root, tmp_path):
    table = pd.read_csv(root / "manifest.csv")
    table["split"] = np.where(table["label"] == "keratosis", "test", "train")
    table.loc[table.groupby("label").cumcount() < 3, "split"] = "test"
    for path in root.glob("*.png"):
        shutil.copy(path, tmp_path)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    for preset in PRESETS:
        _, found = fit(preset, f"dataset.root={tmp_path}", "split=predefined")
        assert (found["prob/keratosis"] == 0).all()


def test_a_finished_trivial_arm_is_skipped(fit, capsys):
    first, _ = fit("majority", "seed=2", skip_finished=False)
    assert "Skipped" not in capsys.readouterr().out
    again, _ = fit("majority", "seed=2")
    assert again.info.run_id == first.info.run_id
    said = capsys.readouterr().out
    assert "Skipped" in said
    assert "another name" not in said
    same, _ = fit("majority", "seed=2", name="majority,evaluation.sensitivity=0.9")
    assert same.info.run_id == first.info.run_id
    said = " ".join(capsys.readouterr().out.split())
    assert "has another name, with the same values: majority" in said
    assert "reference" not in said
    fit("majority", "seed=2", "reference=colour_histogram")
    said = " ".join(capsys.readouterr().out.split())
    note = "Its recorded reference stays none. To compare it with another one: "
    assert note + format_lab_command("compare") in said
    assert said.endswith("reference=colour_histogram")


def test_a_skipped_run_forgets_what_its_own_study_began(fit, folder, session_cache):
    run, _ = fit("majority", "seed=3")
    lock = RunLock.for_run(
        session_cache,
        study=run.data.tags["study"],
        tracked=identify_study("sqlite:///mlflow.db", run.data.tags["study"]),
        fingerprint=run.data.tags["fingerprint"],
    )
    lock.record_run("0" * 32, {})  # by a copy of this project
    fit("majority", "seed=3")
    assert lock.read_interrupted_run() == ("0" * 32, {})
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    killed = client.create_run(run.info.experiment_id)
    for begun in (killed.info.run_id, run.info.run_id):
        lock.record_run(begun, {})
        fit("majority", "seed=3")
        assert lock.read_interrupted_run() is None


def test_trivial_arms_never_load_tensorflow(root, tmp_path, session_cache):
    script = """
import sys
from melanoma_lab.__main__ import main
main()
print("loaded:", sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
    overrides = [f"+experiment={','.join(PRESETS)}", "dataset=csv", f"dataset.root={root}"]
    overrides += ["dataset.image_size=16", f"cache={session_cache}"]
    done = run_python("-c", script, "-m", *overrides, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
