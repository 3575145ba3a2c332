"""Reading a finished run's tags, metrics and files, from the disk or from MLflow.

Nothing is created. MLflow is imported only if the run is not stored on disk; TensorFlow never is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.tracking.client import connect_for_reading, find_run, locked_access
from melanoma_lab.tracking.locations import local_folder
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, RECORD_FILE, RunRecord
from melanoma_lab.tracking.sqlite_reader import list_runs_if_missing


def fetch_artifact(client: Any, run: Any, name: str, scratch: Path) -> Path:
    """Return the path of a run's artifact; if it is not on this disk, download it.

    Args:
        client: an MlflowClient.
        run: MLflow's run.
        name: the file's name.
        scratch: a folder for downloads.

    Raises:
        OSError: the artifact is missing; the text says where it was expected, and what to do if
            all files of the run are gone.
    """
    folder = local_folder(run.info.artifact_uri)
    if folder is not None:
        # Without the client, which caches the old folder of a run that was moved.
        if (folder / name).is_file():
            return folder / name
        raise FileNotFoundError(
            f"{name} is not in {folder}{explain_missing_folder(folder, run.info.run_id)}"
        )
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run.info.run_id, name, str(scratch)))
    except MlflowException as error:
        raise OSError(f"{name}: {error}") from error


def explain_missing_folder(folder: Path, run_id: str | None) -> str:
    """Describe what to do if a run's folder is missing.

    Args:
        folder: the folder of the run's files.
        run_id: MLflow's id of the run; None if it is not known.

    Returns:
        The end of a sentence; empty if the folder exists.
    """
    if folder.is_dir():
        return ""
    delete = f" ({format_program('mlflow')} runs delete --run-id {run_id})" if run_id else ""
    return (
        ", a folder that no longer exists: restore it (mlruns belongs beside mlflow.db, and "
        f"must be moved with it), or delete the run{delete} and train it again"
    )


@dataclass(frozen=True)
class RunIdentity:
    """Identity of a tracked run.

    Attributes:
        run_id: MLflow's id.
        start_time: in milliseconds since 1970.
        tags: the run's tags.
    """

    run_id: str
    start_time: int
    tags: Mapping[str, str]

    @property
    def day(self) -> str:
        """The day on which the run began, in ISO format, UTC."""
        return datetime.fromtimestamp(self.start_time / 1000, UTC).date().isoformat()


@dataclass(frozen=True)
class TrackedRun(RunIdentity):
    """A recorded run, with access to its files.

    Attributes:
        metrics: the last value of each metric, by name.
    """

    metrics: Mapping[str, float]
    _folder: Path
    _client: Any = None
    _run: Any = None

    def artifact(self, name: str) -> Path | None:
        """Return the path of a file of the run, or None if the run does not have it.

        A file that is not on this disk is downloaded.

        Args:
            name: the file's name, such as ``predictions.csv``.
        """
        try:
            return self.require_artifact(name)
        except OSError:
            return None

    def require_artifact(self, name: str) -> Path:
        """Return the path of a file of the run, or raise an error if the run does not have it.

        Args:
            name: the file's name.

        Raises:
            OSError: the file is missing; the text says where it was expected.
        """
        if self._client is not None:
            return fetch_artifact(self._client, self._run, name, self._folder)
        path = self._folder / ARTIFACTS_FOLDER / name
        if not path.is_file():
            raise FileNotFoundError(f"{name} is not in {path.parent}")
        return path


def read_run(run_id: str, tracked: Tracking, scratch: Path) -> TrackedRun:
    """Find a run among the unsent ones on disk, or in MLflow.

    Args:
        run_id: MLflow's id of the run.
        tracked: the settings of tracking.
        scratch: a folder for downloads.

    Raises:
        UserError: there is no such run.
    """
    kept = Path(tracked.unsent) / run_id
    if run_id and (kept / RECORD_FILE).is_file():
        record = RunRecord.read(kept / RECORD_FILE)
        metrics = {point.key: point.value for point in record.metrics}
        return TrackedRun(run_id, record.start_time, record.tags, metrics, kept)
    unknown = UserError(
        f"model={truncate(run_id)}: no such run in {describe_tracking_uri(tracked.uri)}."
    )
    if list_runs_if_missing(run_id, tracked.uri) is not None:
        raise unknown  # before MLflow is loaded
    client = connect_for_reading(tracked)
    with locked_access(tracked.uri):
        run = find_run(client, run_id)
        if run is None:
            raise unknown
        data = run.data
        return TrackedRun(
            run_id, run.info.start_time, dict(data.tags), dict(data.metrics), scratch, client, run
        )
