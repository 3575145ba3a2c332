"""Runs that are stored on disk until they are sent: a record as JSON, with the run's files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.files import write_folder_atomically
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.untrusted_files import read_json
from melanoma_lab.tracking.client import summarize_error
from melanoma_lab.tracking.locations import sqlite_path, sqlite_uri

#: The file that holds a run's record; a folder that has it is complete.
RECORD_FILE = "run.json"
#: Sub-folders of a run's folder.
ARTIFACTS_FOLDER, MODEL_FOLDER = "artifacts", "model"


class MetricPoint(NamedTuple):
    """One value of one metric; ``timestamp`` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass
class RunRecord:
    """A run without its files.

    Attributes:
        run_id: the id on the server, or one made by the lab if the server does not have the run.
        uri: the tracking URI; the path of an SQLite database is absolute.
        artifacts: the setting ``tracking.artifacts``; the path of a folder is absolute.
        start_time: in milliseconds since 1970.
        end_time: in milliseconds since 1970; None while the run is running.
        register: name under which the model will be registered; None: it will not.
        kept_in: the folder of unsent runs that it was stored in, absolute; empty before that.
    """

    run_id: str
    name: str
    study: str
    uri: str
    artifacts: str | None
    start_time: int
    tags: dict[str, str]
    params: dict[str, str]
    end_time: int | None = None
    status: str = "RUNNING"
    metrics: list[MetricPoint] = field(default_factory=list)
    register: str | None = None
    kept_in: str = ""

    def write(self, path: Path) -> None:
        """Write the record as JSON; infinity and NaN, which JSON lacks, become strings."""
        content = asdict(self)
        content["metrics"] = [
            {**point._asdict(), "value": point.value if isfinite(point.value) else str(point.value)}
            for point in self.metrics
        ]
        path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a record that ``write`` wrote.

        Raises:
            UserError: the file holds something else.
        """
        content = read_json(path)
        try:
            points = [
                MetricPoint(str(p["key"]), float(p["value"]), int(p["timestamp"]), int(p["step"]))
                for p in content.pop("metrics")
            ]
            record = cls(**content, metrics=points)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: expected a run that was kept on disk. Received {truncate(repr(error))}. "
                "Move its folder elsewhere to go on without it."
            ) from error
        texts = (record.run_id, record.name, record.study, record.uri, record.status)
        named = (record.tags, record.params)
        if (
            not all(isinstance(text, str) for text in texts)
            or not isinstance(record.start_time, int)
            or not all(isinstance(values, dict) for values in named)
            or not all(isinstance(v, str) for values in named for v in values.values())
        ):
            raise UserError(
                f"{path}: expected a run that was kept on disk, its names, tags and parameters "
                "texts. Move its folder elsewhere to go on without it."
            )
        return record


def save_offline_run(record: RunRecord, files: Path, unsent: Path) -> Path:
    """Store a run on disk, or else in the system's temporary folder; return the run's folder.

    Args:
        files: a folder with the sub-folders ``artifacts`` and ``model``; both may be missing.
        unsent: the folder of runs that could not be sent; created if it is missing.

    Raises:
        RunError: neither folder can be written to.
    """
    elsewhere = Path(tempfile.gettempdir()) / f"melanoma_lab-{os.getuid()}-unsent"
    reasons = []
    for parent in (unsent, elsewhere):
        whole = parent / record.run_id
        try:
            with write_folder_atomically(whole, replace=True) as partial:
                shutil.copytree(files, partial, dirs_exist_ok=True)
                record.kept_in = str(parent.resolve())
                record.write(partial / RECORD_FILE)
        except OSError as error:  # shutil.Error is one too
            reasons.append(f"{parent}: {summarize_error(error)}")
        else:
            return whole
    raise RunError(f"The run could not be saved anywhere ({'; '.join(reasons)}).")


def load_offline_runs(unsent: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Yield the folder and the record of a folder's stored runs, the oldest run first.

    If the folder was moved or copied together with its surroundings, the paths of the database and
    the artifacts are updated: they stay the same relative to the folder.
    """
    found = [
        (path.parent, _update_paths(RunRecord.read(path), unsent.resolve()))
        for path in unsent.glob(f"[!.]*/{RECORD_FILE}")
    ]
    yield from sorted(found, key=lambda item: (item[1].start_time, item[1].run_id))


def _update_paths(record: RunRecord, unsent: Path) -> RunRecord:
    """Return a record whose paths fit the current place of its folder."""
    if not record.kept_in or Path(record.kept_in) == unsent:
        return record

    def update(path: Path) -> Path:
        new = Path(os.path.normpath(unsent / os.path.relpath(path, record.kept_in)))
        return new if new.exists() or not path.exists() else path

    database, artifacts = sqlite_path(record.uri), record.artifacts
    return replace(
        record,
        uri=sqlite_uri(update(database)) if database else record.uri,
        artifacts=str(update(Path(artifacts)))
        if artifacts and "://" not in artifacts
        else artifacts,
    )


def can_resume_run(client: Any, experiment_id: str, run_id: str, unsent: Path) -> bool:
    """Return whether a study has a run that has not finished, so that it can be resumed.

    Args:
        client: an MlflowClient; None if runs are stored on disk.
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


def discard_offline_run(run_id: str, unsent: Path) -> None:
    """Remove the stored files of an interrupted run, because the resumed run records them again."""
    for folder, record in load_offline_runs(unsent):
        if record.run_id == run_id:
            shutil.rmtree(folder, ignore_errors=True)
