"""What an SQLite database of runs has, read without MLflow, whose import takes seconds.

So that a mistyped name is told at once. Where a database cannot be read like this, nothing is
refused here: whoever connects says why.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.tracking.client import refuse_empty
from melanoma_lab.tracking.uris import sqlite_path

#: Runs that are looked at to point from a mistyped id to one that is there.
MAX_LISTED_RUNS = 1000


@dataclass(frozen=True)
class ListedRun:
    """A run as somebody may have meant it.

    Attributes:
        run_id: MLflow's.
        name: what it is called in the list of runs.
        of_arm: whether it is of an arm of a study.
    """

    run_id: str
    name: str
    of_arm: bool


def refuse_unknown_study(study: str, uri: str) -> None:
    """Refuse a study that is not in an SQLite database of runs.

    Args:
        study: its name.
        uri: where runs are recorded.

    Raises:
        UserError: it is not there, or nothing is.
    """
    refuse_empty(uri)
    found = _rows(uri, "SELECT name FROM experiments WHERE lifecycle_stage = 'active'")
    if found is not None and (study,) not in found:
        raise build_unknown_study_error(study, [name for (name,) in found])


def build_unknown_study_error(study: str, there: Sequence[str]) -> UserError:
    """The error of a study that is not where runs are recorded.

    Args:
        study: its name.
        there: names of MLflow's experiments, its own ``Default`` among them.
    """
    studies = [name for name in there if name != "Default"]
    hint = suggest_choice(study, studies) or "Nothing has been trained here yet."
    return UserError(f"study={study}: no such study. {hint}")


def list_runs_if_missing(run_id: str, uri: str) -> list[ListedRun] | None:
    """The newest runs of an SQLite database that does not have a certain run.

    Args:
        run_id: as somebody typed it.
        uri: where runs are recorded.

    Returns:
        The runs, newest first; None where the run is there, or that cannot be told.
    """
    if _rows(uri, "SELECT 1 FROM runs WHERE run_uuid = ?", run_id) != []:
        return None
    found = _rows(
        uri,
        "SELECT r.run_uuid, r.name, EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid"
        " AND t.key = 'arm') FROM runs r JOIN experiments e USING (experiment_id)"
        " WHERE r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'"
        " ORDER BY r.start_time DESC, r.run_uuid LIMIT ?",
        MAX_LISTED_RUNS,
    )
    return None if found is None else [ListedRun(*row) for row in found]


def _rows(uri: str, query: str, *values: object) -> list[tuple[Any, ...]] | None:
    """What a query finds in an SQLite database; None where it cannot be asked, or is half made."""
    database = sqlite_path(uri)
    try:
        if database is None or not database.is_file():
            return None
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            # MLflow's last step in making one is its experiment Default.
            if not connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchall():
                return None
            return connection.execute(query, values).fetchall()
    except (OSError, sqlite3.Error):
        return None
