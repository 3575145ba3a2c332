"""A finished run's facts and files, wherever it is kept; nothing is created.

MLflow only where the run is on a tracking server, no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.tracking.client import connect_for_reading, find_run, locked_access
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, RECORD_FILE, RunRecord
from melanoma_lab.tracking.sqlite_reader import list_runs_if_missing
from melanoma_lab.tracking.uris import local_folder


def fetch_artifact(client: Any, run: Any, name: str, scratch: Path) -> Path:
    """An artifact of a run, from the disk where it lies there, else downloaded.

    Args:
        client: an MlflowClient.
        run: as MLflow has it.
        name: of the file.
        scratch: a folder for what has to be downloaded.

    Raises:
        OSError: it is not there; the text says where it was expected, and what to do where all of
            the run's files are gone.
    """
    folder = local_folder(run.info.artifact_uri)
    if folder is not None:
        # Not by the client, which remembers in one process where the files of a run lay.
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
    """What to do where a run's folder is gone; nothing where it is there.

    Args:
        folder: of its files.
        run_id: MLflow's; None where it is not known.
    """
    if folder.is_dir():
        return ""
    delete = f" ({format_program('mlflow')} runs delete --run-id {run_id})" if run_id else ""
    return (
        ", a folder that is gone: put it back there (mlruns belongs beside mlflow.db, and moves "
        f"with it), or delete the run{delete} and train it again"
    )


@dataclass(frozen=True)
class TrackedRun:
    """A run as it was recorded.

    Attributes:
        run_id: MLflow's.
        tags: searchable facts.
        metrics: the last value of each, by name.
        start_time: in milliseconds since 1970.
    """

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    start_time: int
    _folder: Path
    _client: Any = None
    _run: Any = None

    def artifact(self, name: str) -> Path | None:
        """A file of the run, fetched where it is not on this disk; None where there is none.

        Args:
            name: of the file, such as ``predictions.csv``.
        """
        try:
            return self.require_artifact(name)
        except OSError:
            return None

    def require_artifact(self, name: str) -> Path:
        """A file of the run that cannot be done without.

        Args:
            name: of the file.

        Raises:
            OSError: it is not there; the text says where it was expected.
        """
        if self._client is not None:
            return fetch_artifact(self._client, self._run, name, self._folder)
        path = self._folder / ARTIFACTS_FOLDER / name
        if not path.is_file():
            raise FileNotFoundError(f"{name} is not in {path.parent}")
        return path


def read_run(run_id: str, tracked: Tracking, scratch: Path) -> TrackedRun:
    """Find a run among those that wait to be sent, or where runs are recorded.

    Args:
        run_id: MLflow's.
        tracked: where runs are recorded.
        scratch: a folder for what has to be fetched.

    Raises:
        UserError: there is no such run.
    """
    kept = Path(tracked.unsent) / run_id
    if run_id and (kept / RECORD_FILE).is_file():
        record = RunRecord.read(kept / RECORD_FILE)
        metrics = {point.key: point.value for point in record.metrics}
        return TrackedRun(run_id, record.tags, metrics, record.start_time, kept)
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
            run_id, dict(data.tags), dict(data.metrics), run.info.start_time, scratch, client, run
        )
