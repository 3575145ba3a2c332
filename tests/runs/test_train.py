"""One arm, trained in this process: every preset, every precision, every way to end."""

import shutil
from contextlib import chdir

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lab.commands.train import train_arm
from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.evaluation.metrics import compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.tracking.database import is_empty
from melanoma_lab.training.hardware import Hardware, count_available_threads
from tests.support.marks import slow
from tests.support.undrawn import undrawn_runs

SMALL = ("architecture.filters=[4,8,8]", "architecture.dense_units=8", "training.epochs=1")
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

ARM = Arm("baseline", "baseline")


@pytest.fixture
def train(composed, tmp_path, session_cache, monkeypatch):
    """Train a small network with overrides; returns the MLflow run and its client."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides, arm=ARM):
        return trained(composed, tmp_path, session_cache, *overrides, arm=arm)

    return run


def trained(composed, folder, cache, *overrides, arm=ARM):
    config = composed(f"cache={cache}", *SMALL, *overrides)
    run_id = train_arm(config, arm)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.get_run(run_id), client


def of(tree):
    root = ("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16")
    return (*root, "dataset.positive_class=null")


@pytest.fixture
def on_tree(train, tree):
    return lambda *more, **kw: train(*of(tree), *more, **kw)


@pytest.fixture(scope="module")
def plain(composed, tree, session_cache, tmp_path_factory):
    """A run with nothing special about it and a model, and its client; to be looked at only."""
    folder = tmp_path_factory.mktemp("plain")
    with chdir(folder), undrawn_runs():
        return trained(composed, folder, session_cache, *of(tree))


def table_of(client, run):
    path = client.download_artifacts(run.info.run_id, "predictions.csv")
    return Predictions.read(path).table


def test_test_may_be_left_alone_while_choosing(plain, on_tree):
    seen, _ = plain
    unseen, client = on_tree("tracking.model=false", "evaluation.test=false")
    assert set(table_of(client, unseen)["split"]) == {"train", "val"}
    assert not [name for name in unseen.data.metrics if name.startswith("test/")]
    for name in ("val/log_loss", "val/calibrated_log_loss", "temperature"):
        assert unseen.data.metrics[name] == seen.data.metrics[name]
    assert "test/calibrated_log_loss" in seen.data.metrics
    assert unseen.data.tags["fingerprint"] != seen.data.tags["fingerprint"]


SYNTHETIC = ("dataset.lesions=110", "dataset.image_size=16")


def test_the_learning_rate_of_every_epoch_is_tracked(on_tree):
    overrides = ("schedule=cosine", "schedule.final_share=0.2", "training.epochs=2")
    run, client = on_tree(*overrides, "optimizer.learning_rate=0.01", "tracking.model=false")
    rates = client.get_metric_history(run.info.run_id, "epoch/learning_rate")
    assert [rate.value for rate in rates] == pytest.approx([0.006, 0.002])


@pytest.mark.usefixtures("instant")
def test_correcting_twice_is_said_before_training(on_tree, capsys):
    on_tree("loss=logit_adjusted", "balancing=oversample", "tracking.model=false")
    assert "they overcorrect and favour rare classes" in capsys.readouterr().out


@pytest.mark.parametrize("balancing", ["none", "augmentor"])  # others: training/test_every_option
def test_arms_take_equally_many_steps_whatever_the_balancing(on_tree, balancing):
    run, _ = on_tree(f"balancing={balancing}", "tracking.model=false", "training.batch_size=4")
    assert run.data.metrics["optimizer_steps"] == 5  # 19 training images, 4 a step


def test_an_epoch_may_be_a_pass_over_the_balanced_images(on_tree):
    overrides = ("balancing=augmentor", "balancing.per_class=20", "training.epoch=balanced")
    run, _ = on_tree(*overrides, "tracking.model=false", "training.batch_size=4")
    assert run.data.metrics["optimizer_steps"] == 15


@pytest.mark.parametrize("precision", ["mixed_bfloat16", slow("mixed_float16")])
def test_half_precision_trains_and_answers_in_float32(on_tree, precision):
    try:
        run, client = on_tree(f"training.precision={precision}")
        assert run.info.status == "FINISHED"
        sums = table_of(client, run).filter(like="prob/").sum(axis=1)
        np.testing.assert_allclose(sums, 1, atol=1e-5)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("instant")
def test_what_auto_comes_to_is_recorded_and_shown(on_tree, monkeypatch, capsys):
    machine = Hardware("a processor", frozenset({"avx512_bf16"}))
    for module in ("melanoma_lab.training.hardware", "melanoma_lab.runs.steps"):
        monkeypatch.setattr(f"{module}.detect_hardware", lambda: machine)
    try:
        auto, _ = on_tree("training.precision=auto", "tracking.model=false")
        assert "mixed_bfloat16 on a processor" in capsys.readouterr().out
        named, _ = on_tree("training.precision=mixed_bfloat16", "tracking.model=false")
    finally:
        keras.config.set_dtype_policy("float32")
    float32, _ = on_tree("tracking.model=false")
    shown = capsys.readouterr().out
    assert "float32 on a processor (training.precision=auto: mixed_bfloat16, faster)" in shown
    for run in (auto, named):
        assert run.data.tags["precision"] == run.data.params["training.precision"]
        assert run.data.tags["precision"] == "mixed_bfloat16"
    assert auto.data.tags["fingerprint"] == named.data.tags["fingerprint"]
    assert float32.data.tags["fingerprint"] != named.data.tags["fingerprint"]


@pytest.mark.slow
@pytest.mark.skipif(count_available_threads() < 2, reason="one processor thread cannot be divided")
def test_a_network_trained_on_two_devices_is_kept_like_any_other(on_tree):
    run, client = on_tree("training.devices=2", "regularisation=dropout", "training.batch_size=8")
    assert run.data.tags["device"].startswith("2 parts of ")
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    table = table_of(client, run)
    manifest = pd.read_csv(client.download_artifacts(run.info.run_id, "manifest.csv"))
    from melanoma_lab.data.cache import decode_image

    pixels = np.stack([decode_image(path, 16) for path in manifest["path"]])
    np.testing.assert_allclose(
        model.predict(pixels), table.filter(like="prob/").to_numpy(), atol=1e-5
    )
    val = compute_run_metrics(Predictions(table), None)["val/balanced_accuracy"]
    epochs = client.get_metric_history(run.info.run_id, "epoch/val_balanced_accuracy")
    assert [point.value for point in epochs] == pytest.approx([val])


def test_metrics_are_those_of_the_tracked_table(plain):
    run, client = plain
    recomputed = compute_run_metrics(Predictions(table_of(client, run)), None)
    for name, value in recomputed.items():
        np.testing.assert_equal(run.data.metrics[name], value)


@pytest.mark.usefixtures("instant")
def test_the_table_holds_every_image_as_photographed(on_tree):
    overrides = ("balancing=augmentor", "balancing.per_class=30", "tracking.model=false")
    run, client = on_tree(*overrides)
    table = table_of(client, run)
    manifest = pd.read_csv(client.download_artifacts(run.info.run_id, "manifest.csv"))
    assert list(table["image_id"]) == list(manifest["image_id"])
    assert len(table) == 27
    assert (table["split"] == manifest["split"]).all()


def test_the_kept_network_gives_the_tabled_probabilities(plain):
    run, client = plain
    (kept,) = client.search_logged_models([run.info.experiment_id])
    model = mlflow.pyfunc.load_model(kept.artifact_location)
    signature = model.metadata.signature.inputs.inputs[0]
    assert (signature.type, signature.shape) == (np.dtype("uint8"), (-1, 16, 16, 3))
    table = table_of(client, run)
    manifest = pd.read_csv(client.download_artifacts(run.info.run_id, "manifest.csv"))
    from melanoma_lab.data.cache import decode_image

    pixels = np.stack([decode_image(path, 16) for path in manifest["path"]])
    np.testing.assert_allclose(
        model.predict(pixels), table.filter(like="prob/").to_numpy(), atol=1e-5
    )


def test_the_same_command_gives_the_same_bits(on_tree):
    overrides = (
        "regularisation=dropout",
        "augmentation=flip_rotate_zoom",
        "balancing=augmentor",
        "balancing.per_class=12",
        "training.epochs=2",
        "tracking.model=false",
    )
    first, second = (table_of(client, run) for run, client in (on_tree(*overrides) for _ in "ab"))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    run, client = on_tree(*overrides, "seed=1")
    assert not first.equals(table_of(client, run))


@pytest.mark.usefixtures("instant")
def test_files_that_changed_between_runs_are_told(train, tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "set")
    overrides = ("dataset=folder", f"dataset.root={root}", "dataset.image_size=16")
    overrides += ("dataset.positive_class=null", "tracking.model=false")
    first, _ = train(*overrides)
    changed = min((root / "nevus").iterdir())
    Image.open(changed).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    second, _ = train(*overrides, "seed=1")
    assert first.data.tags["dataset_digest"] != second.data.tags["dataset_digest"]
    with pytest.raises(UserError, match=r"different images or labels \(dataset_digest\)"):
        report_study(
            "ablation",
            reference=None,
            metric="balanced_accuracy",
            tracked=Tracking(),
            folder=tmp_path / "experiments",
        )


def test_a_diverged_run_is_recorded_as_failed_with_the_reason(on_tree, tmp_path):
    with pytest.raises(RunError, match=r"diverged: the loss became .*optimizer\.learning_rate"):
        on_tree("optimizer=sgd", "optimizer.learning_rate=1e30", "training.epochs=3")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("ablation")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["outcome"] == "diverged"
    assert "diverged" in run.data.tags["reason"]


def test_a_run_at_chance_says_so(on_tree, capsys):
    run, _ = on_tree("optimizer.learning_rate=1e-12", "tracking.model=false")
    assert run.data.tags["outcome"] == "at_chance"
    assert "at chance" in capsys.readouterr().out


@pytest.mark.usefixtures("instant")
def test_a_class_that_a_split_lacks_is_said_and_stays_out_of_means(train, tree, tmp_path, capsys):
    for part, names in (("Train", ("melanoma", "nevus", "Vascular lesion")), ("Test", ("nevus",))):
        for name in names:
            shutil.copytree(tree / name, tmp_path / "set" / part / name)
    shutil.rmtree(tmp_path / "set" / "Train" / "nevus")
    for path in sorted((tree / "nevus").iterdir())[:6]:
        (tmp_path / "set" / "Train" / "nevus").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "set" / "Train" / "nevus")
        (tmp_path / "set" / "Test" / "nevus" / path.name).unlink()
    run, _ = train(
        "dataset=folder",
        f"dataset.root={tmp_path / 'set'}",
        "dataset.image_size=16",
        "split=predefined",
        "tracking.model=false",
    )
    assert run.data.tags["absent/test"] == "vascular_lesion, melanoma"
    assert np.isnan(run.data.metrics["test/sensitivity/melanoma"])
    assert run.data.metrics["test/balanced_accuracy"] == run.data.metrics["test/sensitivity/nevus"]
    assert "its macro means are over 1 of 3 classes" in capsys.readouterr().out


@pytest.mark.usefixtures("instant")
def test_images_of_the_dataset_may_be_kept_out_of_the_run(plain, on_tree, drawn):
    run, client = on_tree("tracking.model=false", "tracking.images=false")
    plots = {entry.path for entry in client.list_artifacts(run.info.run_id, "plots")}
    assert "plots/confusion_matrix.png" in plots
    assert not plots & {"plots/samples.png", "plots/grad_cam.png"}
    page = client.download_artifacts(run.info.run_id, "mistakes.html")
    with open(page, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    assert "<img" not in text
    assert text.count("<article") > 0
    kept, _ = plain
    assert kept.data.tags["fingerprint"] == run.data.tags["fingerprint"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=folder", "dataset.root=nowhere"], "no such folder"),
        (["architecture.filters=[2,2,2,2,2,2]", *SYNTHETIC], "expected at least 64"),
        (["regularisation=stochastic_depth", *SYNTHETIC], "vgg5 has no residual blocks"),
        (["regularisation=dropout", "architecture.filters=[2]", *SYNTHETIC], "3 rates for a"),
        (
            ["training.devices=4096", "training.batch_size=4096", *SYNTHETIC],
            r"expected at most what is available, (no GPU and \d+ processor threads|\d+ GPUs?); ",
        ),
    ],
)
def test_mistakes_leave_no_run_behind(train, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(*overrides)
    if not is_empty(tmp_path / "mlflow.db"):
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiments = client.search_experiments()
        assert client.search_runs([one.experiment_id for one in experiments]) == []
