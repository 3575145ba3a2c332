"""Queries of an SQLite database of runs without MLflow, whose import takes seconds.

They let a command refuse a mistyped name at once. If a database cannot be read, nothing is refused
here: connecting to it by MLflow reports the reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.tracking.client import refuse_empty, translate_errors
from melanoma_lab.tracking.locations import sqlite_path

#: How many runs are searched for an id or a name that resembles a mistyped one.
MAX_LISTED_RUNS = 1000


@dataclass(frozen=True)
class ListedRun:
    """A run's id and name, for suggestions in errors.

    Attributes:
        run_id: MLflow's id.
        name: the run's name in the list of runs.
        of_arm: whether the run belongs to an arm of a study.
    """

    run_id: str
    name: str
    of_arm: bool


def refuse_unknown_study(study: str, uri: str) -> None:
    """Refuse a study that is not in an SQLite database of runs.

    Args:
        study: the study's name.
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
        study: the study's name.
        there: names of MLflow's experiments, including its own ``Default``.
    """
    studies = [name for name in there if name != "Default"]
    hint = suggest_choice(study, studies) or "Nothing has been trained here yet."
    return UserError(f"study={study}: no such study. {hint}")


def list_runs_if_missing(run_id: str, uri: str) -> list[ListedRun] | None:
    """Return the newest runs of an SQLite database if it does not have a given run.

    Args:
        run_id: the id as the user typed it.
        uri: the tracking URI.

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
