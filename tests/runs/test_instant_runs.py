"""Whole runs whose networks are trained in no time: the way from a command to what is recorded."""

from contextlib import nullcontext
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from melanoma_lab.evaluation.metrics import compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from tests.support import instant_training
from tests.support.processes import run_command
from tests.support.undrawn import undrawn_runs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("instant")]

EPOCHS = 4


@pytest.fixture(scope="module")
def typed(tree, session_cache):
    """A function that types one training in a folder; it is drawn if asked."""

    def run(folder, *more, drawn=False):
        folder.mkdir(exist_ok=True)
        words = ("+experiment=augmented", "dataset=folder", f"dataset.root={tree}")
        words += ("dataset.image_size=16", "architecture.filters=[4]", "regularisation.rates=[0.1]")
        words += (
            "dataset.positive_class=melanoma",
            "balancing.per_class=12",
            f"training.epochs={EPOCHS}",
            f"cache={folder}/cache",
        )
        with nullcontext() if drawn else undrawn_runs():
            return run_command(*words, *more, folder=folder)

    return run


def only_run(folder):
    """The folder's client and its one run of an arm."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ablation").experiment_id
    (run,) = [run for run in client.search_runs([experiment]) if "arm" in run.data.tags]
    return client, run


def table_of(client, run):
    return Predictions.read(Path(client.download_artifacts(run.info.run_id, "predictions.csv")))


def test_a_run_from_end_to_end(typed, tmp_path):
    done = typed(tmp_path, drawn=True)
    assert done.returncode == 0, done.stderr
    client, run = only_run(tmp_path)
    assert run.info.status == "FINISHED"
    table = table_of(client, run)
    expected = compute_run_metrics(table, "melanoma")
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    points = client.get_metric_history(run.info.run_id, "epoch/val_loss")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files >= {"config.yaml", "manifest.csv", "predictions.csv", "plots", "model_card.md"}
    assert f"epoch {EPOCHS}/{EPOCHS}" in done.stdout
    assert "not a medical device" in done.stdout


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_that_is_interrupted_after_an_epoch_goes_on_with_the_same_result(
    typed, tmp_path, monkeypatch, stop
):
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    typed(calm, "tracking.model=false")
    checks = []

    def interrupt():
        """Ctrl-C before the epoch after ``stop``; it is checked before every one."""
        checks.append(None)
        if len(checks) == stop + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(instant_training, "check_interrupt", interrupt)
        first = typed(stopped, "tracking.model=false")
    assert first.returncode == 130
    assert f"resumes from epoch {stop + 1}" in first.stdout + first.stderr
    assert only_run(stopped)[1].info.status == "KILLED"
    second = typed(stopped, "tracking.model=false")
    assert second.returncode == 0, second.stderr
    assert f"from epoch {stop + 1}" in second.stdout
    (client, run), (undisturbed_client, undisturbed) = only_run(stopped), only_run(calm)
    pd.testing.assert_frame_equal(
        table_of(client, run).table,
        table_of(undisturbed_client, undisturbed).table,
        check_exact=True,
    )
    points = client.get_metric_history(run.info.run_id, "epoch/val_loss")
    assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
