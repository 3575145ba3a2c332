"""Reading a finished run's tags, metrics and files, from the disk or from MLflow.

Nothing is created. MLflow is imported only if the run is not stored on disk; TensorFlow never is.
Queries of an SQLite database need no MLflow, whose import takes seconds: a command refuses a
mistyped name at once. If a database cannot be read, they refuse nothing: connecting to it by MLflow
reports the reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.tracking.client import (
    connect_for_reading,
    find_run,
    locked_access,
    refuse_empty,
    translate_errors,
)
from melanoma_lab.tracking.locations import local_folder, sqlite_path
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, RECORD_FILE, RunRecord

#: How many runs are searched for an id or a name that resembles a mistyped one.
MAX_LISTED_RUNS = 1000


@dataclass(frozen=True)
class ListedRun:
    """A run's id and name, for suggestions in errors."""

    run_id: str
    name: str
    of_arm: bool


def refuse_unknown_study(study: str, uri: str) -> None:
    """Refuse a study that is not in an SQLite database of runs.

    Args:
        uri: the tracking URI; other kinds of URIs are not checked.

    Raises:
        UserError: the database does not have the study, or is empty or missing.
    """
    with translate_errors(uri):
        refuse_empty(uri)
    found = _query(uri, "SELECT name FROM experiments WHERE lifecycle_stage = 'active'")
    if found is not None and (study,) not in found:
        raise build_unknown_study_error(study, [name for (name,) in found])


def build_unknown_study_error(study: str, there: Sequence[str]) -> UserError:
    """Return the error for a study that does not exist, with a suggestion.

    Args:
        there: names of MLflow's experiments, including its own ``Default``.
    """
    studies = [name for name in there if name != "Default"]
    hint = suggest_choice(study, studies) or "Nothing has been trained here yet."
    return UserError(f"study={study}: no such study. {hint}")


def list_runs_if_missing(run_id: str, uri: str) -> list[ListedRun] | None:
    """Return the newest runs of an SQLite database if it does not have a given run.

    Returns:
        The runs, newest first; None if the run exists, or if the database cannot be read.
    """
    if _query(uri, "SELECT 1 FROM runs WHERE run_uuid = ?", run_id) != []:
        return None
    found = _query(
        uri,
        "SELECT r.run_uuid, r.name, EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid"
        " AND t.key = 'arm') FROM runs r JOIN experiments e USING (experiment_id)"
        " WHERE r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'"
        " ORDER BY r.start_time DESC, r.run_uuid LIMIT ?",
        MAX_LISTED_RUNS,
    )
    return None if found is None else [ListedRun(*row) for row in found]


def _query(uri: str, query: str, *values: object) -> list[tuple[Any, ...]] | None:
    """Return the rows of a query; None if the database cannot be read or is incomplete."""
    database = sqlite_path(uri)
    try:
        if database is None or not database.is_file():
            return None
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            # MLflow's last step of creating a database is its experiment Default.
            if not connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchall():
                return None
            return connection.execute(query, values).fetchall()
    except (OSError, sqlite3.Error):
        return None


def fetch_artifact(client: Any, run: Any, name: str, scratch: Path) -> Path:
    """Return the path of a run's artifact; if it is not on this disk, download it.

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
        start_time: in milliseconds since 1970.
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
        """
        try:
            return self.require_artifact(name)
        except OSError:
            return None

    def require_artifact(self, name: str) -> Path:
        """Return the path of a file of the run, or raise an error if the run does not have it.

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
