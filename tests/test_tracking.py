"""Runs end as they went, several processes share a fresh database, dead runs are reconciled."""

import math
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.core.version import git_commit
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.tracking.upload import flatten_params

pytestmark = pytest.mark.integration


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracker(uri):
    return connect(Tracking(uri=uri), "study").result()


def run_of(uri, run_id):
    return mlflow.MlflowClient(uri).get_run(run_id)


def test_a_run_keeps_what_it_is_given(tracker, uri, tmp_path):
    (tmp_path / "out" / "plots").mkdir(parents=True)
    (tmp_path / "out" / "plots" / "a.png").write_bytes(b"png")
    with tracker.run(
        "arm seed=0", {"arm": "baseline"}, {"seed": "0", "long": "x" * 7000}
    ) as run_id:
        tracker.log_metrics({"epoch/val_loss": 2.0}, step=1)
        tracker.log_metrics({"epoch/val_loss": 1.0}, step=2)
        tracker.log_metrics({"test/macro_auroc": math.nan, "test/accuracy": 0.5})
        tracker.set_tags({"outcome": "learned"})
        tracker.log_folder(tmp_path / "out")
    run = run_of(uri, run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "arm seed=0"
    assert run.data.params["seed"] == "0"
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["arm"] == "baseline"
    assert run.data.tags["outcome"] == "learned"
    assert run.data.metrics["test/accuracy"] == 0.5
    assert math.isnan(run.data.metrics["test/macro_auroc"])
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(run_id, "epoch/val_loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert [item.path for item in client.list_artifacts(run_id, "plots")] == ["plots/a.png"]
    assert (tmp_path / "mlruns" / "study" / run_id / "artifacts" / "plots" / "a.png").exists()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no luck"), "FAILED", "ValueError: no luck"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (SystemExit(-1), "KILLED", "interrupted"),  # submitit's, when SLURM preempts the job
    ],
)
def test_a_run_ends_as_it_went(tracker, uri, error, status, reason):
    with pytest.raises(type(error)), tracker.run("name", {}, {}) as run_id:
        raise error
    run = run_of(uri, run_id)
    assert run.info.status == status
    assert run.data.tags["reason"] == reason
    assert run.info.end_time is not None


def test_the_experiment_is_the_study_and_is_used_again(uri):
    first = connect(Tracking(uri=uri), "study").result()
    again = connect(Tracking(uri=uri), "study").result()
    other = connect(Tracking(uri=uri), "other").result()
    assert first.experiment_id == again.experiment_id != other.experiment_id


def test_artifacts_go_where_they_are_told(uri, tmp_path):
    chosen = tmp_path / "chosen"
    tracker = connect(Tracking(uri=uri, artifacts=str(chosen)), "study").result()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("a")
    with tracker.run("name", {}, {}) as run_id:
        tracker.log_folder(tmp_path / "out")
    assert (chosen / "study" / run_id / "artifacts" / "a.txt").exists()


@pytest.mark.parametrize("uri", ["nonsense://x", "postgresql://nobody@127.0.0.1:1/none"])
def test_a_place_that_cannot_be_used_is_named(uri):
    with pytest.raises(UserError, match=r"tracking\.uri="):
        connect(Tracking(uri=uri), "study").result()


def test_a_deleted_study_is_named(uri, tracker):
    mlflow.MlflowClient(uri).delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="study=study: the MLflow experiment of this name was") as e:
        connect(Tracking(uri=uri), "study").result()
    command = f"MLFLOW_TRACKING_URI={uri} {format_program('mlflow')} experiments restore -x "
    assert command + tracker.experiment_id in str(e.value)


CONNECT = """
import sys
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.config.schema import Tracking
tracker = connect(Tracking(uri=sys.argv[1]), "study").result()
with tracker.run("run", {}, {"a": "1"}):
    tracker.log_metrics({"m": 1.0})
    if sys.argv[2] == "die":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def start(uri, how):
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT, uri, how],
        cwd=Path(__file__).resolve().parent.parent,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_processes_share_a_fresh_database(uri):
    processes = [start(uri, "live") for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()
    client = mlflow.MlflowClient(uri)
    experiments = [e for e in client.search_experiments() if e.name == "study"]
    assert len(experiments) == 1
    runs = client.search_runs([experiments[0].experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


def test_what_a_hard_kill_left_running_is_reconciled(uri):
    process = start(uri, "die")
    process.communicate(timeout=180)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("study")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING"
    tracker = connect(Tracking(uri=uri), "study").result()
    run = client.get_run(run.info.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["reason"] == "its process is gone"
    with tracker.run("alive", {}, {}) as run_id:  # a run of a living process stays as it is
        connect(Tracking(uri=uri), "study").result()
        assert client.get_run(run_id).info.status == "RUNNING"


def test_flatten_gives_dotted_keys():
    nested = {"a": {"b": 1, "c": {"d": [1, 2], "e": None}}, "f": "x", "g": True}
    assert flatten_params(nested) == {
        "a.b": "1",
        "a.c.d": "[1, 2]",
        "a.c.e": "null",
        "f": "x",
        "g": "true",
    }


def test_the_commit_is_this_clones():
    repository = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("not in a git clone")
    assert git_commit().removesuffix("+changes") == head.stdout.strip()
