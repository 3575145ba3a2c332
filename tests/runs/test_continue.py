"""The same command after a failure: what is gone on with, and what is not."""

import importlib

import keras
import mlflow
import pytest

from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import Arm
from melanoma_lab.core.errors import RunError
from melanoma_lab.models.optimizers import ScheduledLearningRate
from melanoma_lab.runs import run_messages, steps
from melanoma_lab.runs.run_lock import RunLock

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

ARM = Arm("baseline", "baseline")


@pytest.fixture
def place(composed, tree, tmp_path, session_cache, monkeypatch):
    """A folder where one command is typed, again and again."""
    monkeypatch.chdir(tmp_path)

    class Place:
        def train(self, *more):
            config = composed(
                "dataset=folder",
                f"dataset.root={tree}",
                "dataset.image_size=16",
                "architecture.filters=[4,8,8]",
                "architecture.dense_units=8",
                "training.epochs=2",
                f"cache={tmp_path / 'cache'}",
                *more,
            )
            return train_arm(config, ARM)

        def fail(self, *more):
            """Fail when everything is recorded but the end of the run."""

            def broken(*_, **__):
                raise ZeroDivisionError("a bug in the lab")

            with monkeypatch.context() as patch:
                patch.setattr(run_messages, "show_results", broken)
                with pytest.raises(ZeroDivisionError):
                    self.train(*more)

        def runs(self):
            """Run id -> status."""
            client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
            experiment = client.get_experiment_by_name("ablation").experiment_id
            return {run.info.run_id: run.info.status for run in client.search_runs([experiment])}

        def kept(self):
            return [path for path in (tmp_path / "cache" / "runs").iterdir() if path.is_dir()]

    return Place()


def test_a_failed_run_goes_on_where_it_failed(place, capsys):
    place.fail()
    assert list(place.runs().values()) == ["FAILED"]
    assert len(place.kept()) == 1
    capsys.readouterr()
    run_id = place.train()
    said = capsys.readouterr().out
    assert f"Resuming run {run_id} from epoch 3" in said
    assert "epoch 1/2" not in said
    assert place.runs() == {run_id: "FINISHED"}
    assert place.kept() == []
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    assert len(client.search_logged_models([experiment])) == 1
    points = client.get_metric_history(run_id, "test/accuracy")
    assert len(points) == 1


@pytest.mark.usefixtures("instant")
def test_a_run_starts_over_where_its_bits_would_differ(place, capsys, monkeypatch):
    place.fail("tracking.model=false")
    (failed,) = place.runs()
    monkeypatch.setattr(steps, "describe_environment", lambda *_: {"threads": "77"})
    run_id = place.train("tracking.model=false")
    said = capsys.readouterr().out
    assert f"Starting over: run {failed} was interrupted, and cannot be resumed" in said
    assert "now 77" in said
    assert place.runs() == {failed: "FAILED", run_id: "FINISHED"}


@pytest.mark.usefixtures("instant")
def test_nothing_is_kept_where_nobody_wants_it(place, capsys):
    place.fail("tracking.model=false", "training.resume=false")
    assert place.kept() == []
    place.train("tracking.model=false", "training.resume=false")
    assert "Resuming" not in capsys.readouterr().out
    assert sorted(place.runs().values()) == ["FAILED", "FINISHED"]


def test_a_diverged_run_is_not_gone_on_with(place):
    with pytest.raises(RunError, match="diverged"):
        place.train("optimizer=sgd", "optimizer.learning_rate=1e30", "training.epochs=3")
    assert place.kept() == []


class Breaking(keras.optimizers.schedules.LearningRateSchedule):
    """The weights become no numbers in the last step of all."""

    def __init__(self, course):
        self.last = course.steps - 1

    def __call__(self, step):
        return keras.ops.where(step == self.last, float("nan"), 0.001)


@pytest.mark.slow
def test_a_run_that_breaks_in_its_last_step_has_diverged_and_is_not_gone_on_with(
    place, monkeypatch
):
    module = importlib.import_module("melanoma_lab.training.trainer")
    with monkeypatch.context() as patch:
        patch.setattr(
            module, "build_schedule", lambda _, course: ScheduledLearningRate(Breaking(course))
        )
        with pytest.raises(
            RunError,
            match=r"^diverged: the validation loss .*; there are no metrics. Lower optimizer",
        ):
            place.train("training.epochs=1", "tracking.model=false")
    assert place.kept() == []
    (failed,) = place.runs()
    run = mlflow.MlflowClient().get_run(failed)
    assert run.data.tags["outcome"] == "diverged"
    assert run.data.metrics["best_epoch"] == 0
    run_id = place.train("training.epochs=1", "tracking.model=false")
    assert place.runs() == {failed: "FAILED", run_id: "FINISHED"}


@pytest.mark.usefixtures("instant")
def test_a_disk_that_takes_no_note_does_not_stop_a_run(place, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLock, "record_run", full)
    place.train("tracking.model=false")
    assert "it cannot be resumed: [Errno 28] No space left" in capsys.readouterr().out
    assert list(place.runs().values()) == ["FINISHED"]
