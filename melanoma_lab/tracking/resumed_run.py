"""State of a run that is resumed after an interruption: what the server and the disk have of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melanoma_lab.tracking.offline_store import load_offline_runs
from melanoma_lab.tracking.upload import REASON_TAG

#: Tag with the number of times a run was resumed; with the suffix ``_at``, the last time.
RESUMED_TAG = "resumed"


@dataclass(frozen=True)
class RecordedState:
    """What the server has of a run that is resumed.

    Attributes:
        tags: new values of the tags that count resumptions.
        params: the logged parameters.
        points: name and step of each logged value of a metric.
    """

    tags: dict[str, str]
    params: dict[str, str]
    points: frozenset[tuple[str, int]]


def can_resume_run(client: Any, experiment_id: str, run_id: str, unsent: Path) -> bool:
    """Return whether a study has a run that has not finished, so that it can be resumed.

    Args:
        client: an MlflowClient; None if runs are stored on disk.
        experiment_id: id of the study's MLflow experiment.
        run_id: the run's id.
        unsent: the folder of runs that could not be sent.
    """
    kept = {record.run_id: record.status for _, record in load_offline_runs(unsent)}
    if kept.get(run_id) == "FINISHED":
        return False
    if client is None:
        return run_id in kept
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException:
        return False
    here = info.experiment_id == experiment_id and info.lifecycle_stage == "active"
    return bool(here and info.status != "FINISHED")


def fetch_recorded_state(client: Any, run_id: str) -> RecordedState:
    """Read what the server has of a run that is resumed, and remove why it ended from its tags."""
    data = client.get_run(run_id).data
    points = {
        (key, point.step)
        for key in data.metrics
        for point in client.get_metric_history(run_id, key)
    }
    if REASON_TAG in data.tags:
        client.delete_tag(run_id, REASON_TAG)
    tags = {
        RESUMED_TAG: str(int(data.tags.get(RESUMED_TAG, "0")) + 1),
        f"{RESUMED_TAG}_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return RecordedState(tags, dict(data.params), frozenset(points))


def discard_offline_run(run_id: str, unsent: Path) -> None:
    """Remove the stored files of an interrupted run, because the resumed run records them again."""
    for folder, record in load_offline_runs(unsent):
        if record.run_id == run_id:
            shutil.rmtree(folder, ignore_errors=True)
