"""An MLflow run that is gone on with: nothing twice, nothing lost."""

from datetime import UTC, datetime

import mlflow
import pytest

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.tracking.tracker import connect

pytestmark = pytest.mark.integration


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracker(uri):
    return connect(Tracking(uri=uri), "study").result()


def fail(tracker, tags, params):
    with tracker.run("before", tags, params):
        tracker.log_metrics({"epoch/val_loss": 2.0}, step=1)
        tracker.log_metrics({"epoch/val_loss": 1.0}, step=2)
        tracker.log_metrics({"parameters": 5.0})
        raise OSError("disk full")


def broken_off(tracker, tags, params):
    """A run that fails after two epochs."""
    with pytest.raises(OSError, match="disk full"):
        fail(tracker, tags, params)
    return tracker.run_id


def test_a_run_goes_on_where_it_was(tracker, uri):
    first = broken_off(tracker, {"arm": "a", "git_commit": "1"}, {"seed": "0", "root": "x"})
    assert tracker.can_resume(first)
    tags, params = {"arm": "a", "git_commit": "2"}, {"seed": "0", "root": "moved", "new": "1"}
    with tracker.run("after", tags, params, continuing=first) as run_id:
        client = mlflow.MlflowClient(uri)
        assert client.get_run(first).info.status == "RUNNING"
        tracker.log_metrics({"epoch/val_loss": 1.0, "epoch/val_accuracy": 0.5}, step=2)
        tracker.log_metrics({"epoch/val_loss": 0.5}, step=3)
        tracker.log_metrics({"parameters": 5.0})
    assert run_id == first
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "after"
    assert run.data.params == {"seed": "0", "root": "x", "new": "1"}  # MLflow changes none
    assert run.data.tags["git_commit"] == "2"
    assert run.data.tags["resumed"] == "1"
    assert datetime.fromisoformat(run.data.tags["resumed_at"]) <= datetime.now(UTC)
    assert "reason" not in run.data.tags
    for name, expected in {
        "epoch/val_loss": [(1, 2.0), (2, 1.0), (3, 0.5)],
        "epoch/val_accuracy": [(2, 0.5)],
        "parameters": [(0, 5.0)],
    }.items():
        points = client.get_metric_history(first, name)
        assert sorted((point.step, point.value) for point in points) == expected
    assert not tracker.can_resume(first)


def test_the_next_run_of_a_process_knows_nothing_of_the_one_before(tracker, uri):
    first = broken_off(tracker, {}, {})
    with tracker.run("again", {}, {}, continuing=first):
        pass
    with tracker.run("other", {}, {}) as other:
        tracker.log_metrics({"epoch/val_loss": 7.0}, step=1)
    assert mlflow.MlflowClient(uri).get_run(other).data.metrics == {"epoch/val_loss": 7.0}


def test_how_often_a_run_was_continued_is_counted(tracker, uri):
    run_id = broken_off(tracker, {}, {})
    for _ in range(2):
        with tracker.run("again", {}, {}, continuing=run_id):
            pass
    assert mlflow.MlflowClient(uri).get_run(run_id).data.tags["resumed"] == "2"


def test_what_is_gone_or_elsewhere_is_not_continued(tracker, uri):
    run_id = broken_off(tracker, {}, {})
    assert not tracker.can_resume("0" * 32)
    assert not connect(Tracking(uri=uri), "other").result().can_resume(run_id)
    mlflow.MlflowClient(uri).delete_run(run_id)
    assert not tracker.can_resume(run_id)
