"""Ensembles of tracked runs: what is recorded, refused, and seen by a comparison."""

import json
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest

from melanoma_lab.commands.train import train_arm
from melanoma_lab.comparison.compare import compare_study, format_comparison_json
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.config.compose import compose_config
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.cache import decode_image
from melanoma_lab.evaluation.metrics import compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles
from melanoma_lab.inference.model_source import read_appearance, read_model_folder
from melanoma_lab.models.safe_loading import load_safely
from melanoma_lab.tracking.logged_model import download_model
from melanoma_lab.tracking.tracker import connect
from tests.support.fake_studies import FakeStudies, draw_table, tracking_in
from tests.support.processes import run_python

pytestmark = pytest.mark.integration

SCRIPT = """
import sys
from melanoma_lab.__main__ import main
try:
    main()
finally:
    print("loaded:", sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
ARM = "dropout,e=1"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    before = mlflow.get_tracking_uri()
    made = FakeStudies.in_database(tmp_path_factory.mktemp("ensembles"))
    connect(tracking_in(made.folder), "first").result()
    yield made
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def study(tracked):
    """Nine seeds of an arm, one of another."""
    name = tracked.fill({ARM: (1.0, "")}, seeds=range(9))
    tracked.add(name, "baseline,e=1", 0)
    return name


def ensemble(tracked, study, arm=None, size=None, **how):
    tracking = Tracking(uri=tracking_in(tracked.folder).uri, **how)
    return make_ensembles(study, arm=arm, size=size, tracked=tracking)


def artifact(tracked, run_id, name):
    return Path(urlparse(tracked.client.get_run(run_id).info.artifact_uri).path) / name


def cross_validated(tracked, seeds=(0,), folds=3, **tags):
    """A study whose folds share one test split; what validates goes round."""
    name = tracked.study()
    for seed in seeds:
        for fold in range(folds):
            table = draw_table(1.0, seed=10 * seed + fold)
            seen = table["split"] != "test"
            turn = table["group"].str[-4:].astype(int) % folds == fold
            table["split"] = np.where(seen, np.where(turn, "val", "train"), "test")
            split = {"split_hash": f"fold {fold}"}
            tracked.add(name, "baseline", seed, fold=fold, table=table, **{**split, **tags})
    return name


@pytest.fixture(scope="module")
def made(tracked, study):
    """Ensembles of three seeds each."""
    return ensemble(tracked, study, "dropout", 3)


def test_an_ensemble_has_what_a_run_has(tracked, study, made):
    assert len(made) == 3
    run = tracked.client.get_run(made[1])
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    expected = {
        "study": study,
        "experiment": "dropout",
        "arm": "dropout,e=1,ensemble=3",
        "reference": ARM,
        "seed": "3",
        "fold": "0",
        "members": "3,4,5",
        "member_folds": "0",
        "split_hash": "split 0",
        "dataset_digest": "data",
        "protocol": "grouped",
        "outcome": "learned",
    }
    assert expected.items() <= tags.items()
    assert len(tags["fingerprint"]) == 16
    members = [draw_table(1.0, seed=seed, arm=ARM) for seed in (3, 4, 5)]
    table = Predictions.read(artifact(tracked, made[1], "predictions.csv")).table
    mean = np.mean([each.filter(like="prob/").to_numpy(np.float64) for each in members], axis=0)
    np.testing.assert_array_equal(table.filter(like="prob/"), mean.astype(np.float32))
    metrics = run.data.metrics
    for name, value in compute_run_metrics(Predictions(table), "melanoma").items():
        assert metrics[name] == pytest.approx(value), name
    assert (metrics["parameters"], metrics["optimizer_steps"]) == (3 * 1234, 900)
    assert metrics["fit_seconds"] == 3 * 12.5 + 3 + 4 + 5
    assert run.data.params["dataset.name"] == "synthetic"
    assert "seed" not in run.data.params  # they do not agree in it
    members = json.loads(run.data.params["ensemble.members"])
    assert [tracked.client.get_run(each).data.tags["seed"] for each in members] == ["3", "4", "5"]
    assert "seeds:" in artifact(tracked, made[1], "config.yaml").read_text()
    manifest = pd.read_csv(artifact(tracked, made[1], "manifest.csv"))
    assert manifest["split"].value_counts().to_dict() == {"train": 160, "val": 160, "test": 160}
    plots = {path.stem for path in artifact(tracked, made[1], "plots").iterdir()}
    assert plots >= {"confusion_matrix", "roc_curves", "reliability_diagram"}
    page = artifact(tracked, made[1], "mistakes.html").read_text()
    assert "The folder of its images is not known." in page  # of a run of long ago
    assert page.count("<article") == 40


def test_the_same_command_again_makes_nothing(tracked, study, made, capsys):
    assert ensemble(tracked, study, ARM, 3) == made
    assert capsys.readouterr().out.count("Skipped: run ") == 3


def test_a_comparison_pairs_it_with_its_members(tracked, study, made, tmp_path):
    loaded = tracked.load(study)
    comparison = compare_study(loaded)
    arm = comparison.arms["dropout,e=1,ensemble=3"]
    assert (arm.short, arm.reference) == ("dropout,ensemble=3", ARM)
    assert arm.label == "dropout,ensemble=3 (ensemble of 3)"
    (entry,) = [e for e in comparison.of_metric("log_loss") if e.arm == arm.name]
    assert (entry.n_pairs, entry.n_seeds, entry.verdict) == (3, 3, "helps")
    value = {(r.key.arm, r.key.seed): r.estimates["log_loss"].value for r in loaded.runs}
    differences = [
        value[arm.name, first] - np.mean([value[ARM, first + i] for i in range(3)])
        for first in (0, 3, 6)
    ]
    assert entry.summary.mean == pytest.approx(np.mean(differences))
    assert entry.summary.sd == pytest.approx(np.std(differences, ddof=1))
    content = json.loads(format_comparison_json(comparison, []))["arms"]
    assert content[arm.name]["seeds"] == list(range(9))
    assert content[arm.name]["members"] == 3
    assert "members" not in content[ARM]
    warnings = find_warnings(loaded, comparison)
    (text,) = [text for text in warnings if "is an ensemble" in text]
    assert "its 3 runs" in text
    assert "3 times as long to train and to apply" in text
    assert not any("optimizer steps" in text for text in warnings)
    write_comparison_report(
        tmp_path, loaded, comparison, warnings, again="python -m melanoma_lab compare"
    )
    report = (tmp_path / "report.md").read_text()
    assert f"melanoma_lab ensemble study={study} arm=dropout members=3" in report
    assert "ensemble=3" not in report[report.index("## Reproduce") :]
    assert "| dropout,ensemble=3 (ensemble of 3) | 3 |" in report
    assert "An ensemble is paired with the mean of the single runs" in report


def test_one_ensemble_has_no_interval_and_leaks_where_a_member_does(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
    tracked.add(name, "baseline", 1, protocol="leaking")
    (made,) = ensemble(tracked, name)
    assert tracked.client.get_run(made).data.tags["protocol"] == "leaking"
    loaded = tracked.load(name)
    comparison = compare_study(loaded)
    (entry,) = comparison.of_metric("accuracy")
    assert (entry.n_pairs, entry.verdict) == (1, "too few runs")
    assert np.isfinite(entry.summary.mean)
    assert np.isnan([entry.summary.ci_low, entry.summary.ci_high, entry.p]).all()
    assert np.isnan(comparison.arms["baseline,ensemble=2"].metrics["accuracy"].ci_low)
    (text,) = [
        w for w in find_warnings(loaded, compare_study(loaded, metric="accuracy")) if "few" in w
    ]
    assert "shares 1 ensemble with baseline; a verdict takes 3 or more" in text


def test_folds_with_one_test_split_answer_together(tracked, tmp_path):
    name = cross_validated(tracked, seeds=(0, 2))
    made = ensemble(tracked, name, size=1)
    assert len(made) == 2
    run = tracked.client.get_run(made[1])
    assert (run.data.tags["members"], run.data.tags["member_folds"]) == ("2", "0,1,2")
    assert run.data.tags["split_hash"] not in {"fold 0", "fold 1", "fold 2"}
    table = Predictions.read(artifact(tracked, made[1], "predictions.csv")).table
    assert table["split"].value_counts().to_dict() == {"train": 320, "test": 160}
    assert not table.groupby("group")["split"].nunique().gt(1).any()
    assert np.isnan(run.data.metrics["val/accuracy"])
    assert "melanoma" in run.data.tags["absent/val"]
    loaded = tracked.load(name)
    comparison = compare_study(loaded)
    (entry,) = comparison.of_metric("log_loss")
    assert (entry.n_pairs, entry.n_seeds, entry.verdict) == (2, 2, "too few runs")
    warnings = find_warnings(loaded, comparison)
    assert any("generalisation_gap" in text for text in warnings)
    write_comparison_report(tmp_path, loaded, comparison, warnings, again="")
    assert "ensemble=3" in (tmp_path / "report.md").read_text()


def test_folds_of_kfold_are_refused(tracked):
    name = tracked.study()
    table = draw_table(1.0, seed=0)
    for fold in range(3):
        turned = table.assign(split=np.roll(table["split"], 160 * fold))
        tracked.add(name, "dropout", 0, fold=fold, table=turned, split_hash=f"fold {fold}")
    with pytest.raises(UserError, match=r"0 are test images of all.*split=kfold"):
        ensemble(tracked, name)
    assert "dropout,ensemble=3" not in tracked.load(name).arms


def without_test(table):
    """As ``evaluation.test=false`` leaves it."""
    return table[table["split"] != "test"].reset_index(drop=True)


def test_folds_that_met_no_test_image_are_refused(tracked):
    name = tracked.study()
    table = draw_table(1.0, seed=0)
    for fold in range(3):
        turned = without_test(table.assign(split=np.roll(table["split"], 160 * fold)))
        tracked.add(name, "dropout", 0, fold=fold, table=turned, split_hash=f"fold {fold}")
    with pytest.raises(UserError, match=r"not measured on the same images: .* split=kfold"):
        ensemble(tracked, name)


def test_images_that_no_member_was_measured_on_keep_their_split(tracked):
    """They are known of an ensemble, as of its members: ``evaluate`` tells what it has seen."""
    name = tracked.study()
    table = draw_table(1.0, seed=0)
    for seed in (0, 1):
        run_id = tracked.add(name, "dropout", seed, table=without_test(table))
        table[["image_id", "split"]].to_csv(artifact(tracked, run_id, "manifest.csv"), index=False)
    (made,) = ensemble(tracked, name)
    kept = pd.read_csv(artifact(tracked, made, "manifest.csv"), keep_default_na=False)
    assert kept["split"].tolist() == table["split"].tolist()


def test_runs_that_do_not_belong_together_are_refused(tracked):
    table = draw_table(1.0, seed=1)
    edited = table.assign(y_true=np.where(table.index == 0, "nevus", table["y_true"]))
    for other, message in (
        ({"dataset_digest": "other"}, r"saw different images or labels \(dataset_digest\)"),
        ({"metadata_digest": "other"}, r"of the same patients \(metadata_digest\)"),
        ({"table": table[[*table.columns[:4], *table.columns[:3:-1]]]}, "in another order"),
        ({"table": edited}, "not of the same images, groups and labels"),
    ):
        name = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
        tracked.add(name, "baseline", 1, **other)
        with pytest.raises(UserError, match=message):
            ensemble(tracked, name)
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    lost = tracked.load(name).runs[1].run_id
    artifact(tracked, lost, "predictions.csv").unlink()
    with pytest.raises(UserError, match=f"{lost}. cannot be a member: predictions.csv is not in"):
        ensemble(tracked, name)
    lost = tracked.add(name, "baseline", 1)
    artifact(tracked, lost, "config.yaml").unlink()
    with pytest.raises(UserError, match=f"{lost}. cannot be a member: config.yaml is not in"):
        ensemble(tracked, name)


@pytest.mark.parametrize(
    ("arm", "size", "message"),
    [
        ("dropuot", None, "arm=dropuot: the study has no such arm. Did you mean dropout?"),
        (None, None, "arm is not set, .* has several: .* Valid: baseline dropout."),
        ("dropout", 10, "members=10: the arm has finished runs of 9 seeds only"),
        ("dropout", 1, "members=1 is a single one; set members=2 or more"),
        ("dropout,ensemble=3", None, "it is an ensemble itself"),
    ],
)
@pytest.mark.usefixtures("made")
def test_mistakes_point_to_what_would_be_right(tracked, study, arm, size, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        ensemble(tracked, study, arm, size)


def test_too_few_runs_and_missing_folds_are_told(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(4,))
    tracked.add(name, "dropout", 0, status="FAILED")
    with pytest.raises(UserError, match="has one that has finished; train other seeds"):
        ensemble(tracked, name, "baseline")
    with pytest.raises(UserError, match="arm=dropout: no run of it has finished yet"):
        ensemble(tracked, name, "dropout")
    name = cross_validated(tracked)
    tracked.add(name, "baseline", 1, fold=1)
    with pytest.raises(UserError, match=r"seed=1 lacks split\.fold=0,2"):
        ensemble(tracked, name)


@pytest.mark.slow
def test_the_command_makes_them_without_tensorflow_and_tells_mistakes_with_status_2(tracked):
    name = tracked.fill({ARM: (1.0, "")}, seeds=range(4))

    def lab(*arguments):
        words = ("-c", SCRIPT, *arguments, f"study={name}")
        return run_python(*words, folder=tracked.folder, COLUMNS="100")

    done = lab("ensemble", "arm='dropout,e=1'", "members=3")
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert "No model: seeds 0, 1, 2 saved none" in done.stdout
    assert "Not used, too few for another ensemble: seeds 3." in done.stdout
    assert compare_study(tracked.load(name)).arms["dropout,e=1,ensemble=3"].seeds == (0, 1, 2)
    wrong = lab("ensemble", "arm=dropotu")
    assert wrong.returncode == 2
    assert "Did you mean dropout" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def train_two(tree, tmp_path, cache, key):
    """Two networks, trained and tracked as a user does it: of seeds or of folds."""
    tracking = tracking_in(tmp_path)
    for value in (0, 1):
        config, arm = compose_config(
            [
                *("+experiment=compact", "architecture.filters=[4,8]", "architecture.blocks=[1,1]"),
                *("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16"),
                *("training.epochs=1", f"cache={cache}", "study=s", f"tracking.uri={tracking.uri}"),
                *(("split=cross_val", "split.k=2") if key == "split.fold" else ()),
                f"{key}={value}",
            ]
        )
        train_arm(config, arm)
    return tracking


@pytest.mark.slow
def test_what_training_images_look_like_is_left_out_where_members_saw_others(
    tree, tmp_path, session_cache
):
    tracking = train_two(tree, tmp_path, session_cache, "split.fold")
    (made,) = make_ensembles("s", arm=None, size=None, tracked=tracking)
    folder = download_model(f"runs:/{made}/model", tmp_path / "model")
    assert read_appearance(folder) is None
    network = load_safely(read_model_folder(folder)[0])
    client = mlflow.MlflowClient(tracking.uri)
    table = Predictions.read(Path(client.download_artifacts(made, "predictions.csv"))).table
    manifest = pd.read_csv(client.download_artifacts(made, "manifest.csv"))
    assert list(manifest["image_id"]) == list(table["image_id"])
    pixels = np.stack([decode_image(path, 16) for path in manifest["path"]])
    answers = network.predict(pixels, verbose=0)
    np.testing.assert_allclose(answers, table.filter(like="prob/"), atol=1e-5)


def test_the_model_answers_with_the_mean(tree, tmp_path, session_cache, capsys):
    tracking = train_two(tree, tmp_path, session_cache, "seed")
    capsys.readouterr()
    (made,) = make_ensembles("s", arm=None, size=None, tracked=tracking)
    assert "No model" not in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking.uri)
    card = Path(client.download_artifacts(made, "model_card.md")).read_text(encoding="utf-8")
    assert "the mean of 2 networks (seeds 0,1)" in card
    assert "Findings of the audit" in card
    folder = download_model(f"runs:/{made}/model", tmp_path / "model")
    assert read_appearance(folder) is not None  # all members saw the same images
    table = Predictions.read(Path(client.download_artifacts(made, "predictions.csv"))).table
    model = mlflow.pyfunc.load_model(f"runs:/{made}/model")
    signature = model.metadata.signature.inputs.inputs[0]
    assert (signature.type, signature.shape) == (np.dtype("uint8"), (-1, 16, 16, 3))
    manifest = pd.read_csv(client.download_artifacts(made, "manifest.csv"))
    assert list(manifest["image_id"]) == list(table["image_id"])
    assert list(manifest["split"]) == list(table["split"])
    pixels = np.stack([decode_image(path, 16) for path in manifest["path"]])
    np.testing.assert_allclose(model.predict(pixels), table.filter(like="prob/"), atol=1e-5)
    assert Path(client.download_artifacts(made, "plots/grad_cam.png")).is_file()
    page = Path(client.download_artifacts(made, "mistakes.html")).read_text()
    assert "ensemble=2" in page
    assert page.count("<img") == 2 * page.count("<article") > 0
    single = client.get_run(json.loads(client.get_run(made).data.params["ensemble.members"])[0])
    metrics = client.get_run(made).data.metrics
    assert metrics["parameters"] == 2 * single.data.metrics["parameters"]
