"""A folder of runs that was moved, renamed or copied, with its database and its artifacts.

MLflow keeps absolute paths of artifacts in its database, and has no command that changes them
(mlflow/mlflow#3144). So where the lab opens an SQLite database that is not where its paths were
written, it writes them anew: then everything finds the artifacts, ``mlflow ui`` too. Studies say in
a tag that they are the lab's and where their artifacts lie as seen from the database; nothing else
in it is touched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from melanoma_lab.core.errors import UserError
from melanoma_lab.tracking.uris import (
    build_artifact_location,
    local_folder,
    make_absolute_uri,
    sqlite_path,
    sqlite_uri,
)

#: On an experiment: the folder of its artifacts, relative to that of the database.
FOLDER_TAG = "melanoma_lab.folder"
#: On an experiment: the database that it was begun in, absolute.
BEGUN_TAG = "melanoma_lab.begun_in"
#: Seconds to wait for another process that writes.
LOCK_TIMEOUT = 60
#: Where paths of artifacts stand: table, its id, the path, what lies between it and the study's.
PATHS = (
    ("runs", "run_uuid", "artifact_uri", ""),
    ("logged_models", "model_id", "artifact_location", "models/"),
)


def build_location_tags(uri: str, root: str | None) -> dict[str, str]:
    """What a new study says of its place; nothing where that is not below its database's folder.

    Args:
        uri: where it is recorded.
        root: where its artifacts lie; None where a server decides.
    """
    database = sqlite_path(uri)
    folder = None if root is None else local_folder(root)
    if database is None or folder is None or not folder.is_relative_to(database.parent):
        return {}
    return {FOLDER_TAG: str(folder.relative_to(database.parent)), BEGUN_TAG: str(database)}


def identify_study(uri: str, study: str) -> str:
    """What a study's place is known by, before and after its folder is moved or renamed.

    Args:
        uri: where it is recorded.
        study: its name.

    Returns:
        The URI, absolute; of a study that was moved, the one that it was begun with. A copy beside
        its original is another place.
    """
    database = sqlite_path(uri)
    here = make_absolute_uri(uri)
    if database is None or not database.is_file():
        return here
    try:
        with closing(_opened(database)) as connection:
            begun = connection.execute(
                "SELECT t.value FROM experiments e JOIN experiment_tags t USING (experiment_id)"
                " WHERE e.name = ? AND t.key = ?",
                (study, BEGUN_TAG),
            ).fetchone()
    except sqlite3.Error:  # none of MLflow's; whoever connects says so
        return here
    if begun is None:
        return here
    there = Path(begun[0])
    try:
        another = there.exists() and not there.samefile(database)  # a link was left there
    except OSError:  # this user may not look
        another = False
    return here if another else sqlite_uri(there)


def relocate_artifacts(uri: str) -> int:
    """Write the paths of a moved or copied SQLite database anew, where its artifacts came along.

    What lies only where it was stays known there. New runs of every study write beside the database
    from then on.

    Args:
        uri: where runs are recorded.

    Returns:
        How many runs' artifacts are found in a new place; 0 where nothing has moved, or all that
        moved is gone.

    Raises:
        UserError: paths would have to be written, and the database may only be read.
    """
    database = sqlite_path(uri)
    if database is None or not database.is_file():
        return 0
    with closing(_opened(database)) as connection:
        if not _is_mlflows(connection) or not any(_changes(connection, database.parent)):
            return 0
        try:
            return _write_anew(connection, database.parent)
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
                raise
            raise UserError(
                f"{database} was moved or copied: it has to learn where the artifacts beside it "
                "lie now, and may not be written. Copy its folder to one of yours, and begin there."
            ) from None


def _write_anew(connection: sqlite3.Connection, here: Path) -> int:
    """Write all paths that changed; return how many runs' artifacts are found by them."""
    connection.execute("BEGIN IMMEDIATE")
    changes = list(_changes(connection, here))  # another process may have been here
    for table, key, column, entry, old, new in changes:
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE {key} = ?",  # noqa: S608 - names of ours
            (new, entry),
        )
        if table == "logged_models":
            connection.execute(  # its registered versions
                "UPDATE model_versions SET storage_location = ? WHERE storage_location = ?",
                (new, old),
            )
    connection.commit()
    return sum(table == "runs" and _there(new) for table, *_, new in changes)


def _there(uri: str) -> bool:
    """Whether a folder of artifacts exists; none does that this user may not look for."""
    folder = local_folder(uri)
    try:
        return folder is not None and folder.exists()
    except OSError:
        return False


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=LOCK_TIMEOUT, isolation_level=None)


def _is_mlflows(connection: sqlite3.Connection) -> bool:
    """Whether the database has MLflow's tables, in a version that has them all."""
    wanted = {"experiments", "experiment_tags", "model_versions", *(path[0] for path in PATHS)}
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return wanted <= {name for (name,) in found}


def _changes(
    connection: sqlite3.Connection, here: Path
) -> Iterator[tuple[str, str, str, object, str, str]]:
    """Paths to be written anew: table, its id column, its path column, the id, old path, new."""
    studies = connection.execute(
        "SELECT e.experiment_id, e.artifact_location, t.value"
        " FROM experiments e JOIN experiment_tags t USING (experiment_id) WHERE t.key = ?",
        (FOLDER_TAG,),
    ).fetchall()
    for study, before, folder in studies:
        home = build_artifact_location(here / folder)
        for table, key, column, between in PATHS:
            elsewhere = connection.execute(
                f"SELECT {key}, {column} FROM {table}"  # noqa: S608 - names of ours
                f" WHERE experiment_id = ? AND {column} != ? || {key} || '/artifacts'",
                (study, f"{home}/{between}"),
            ).fetchall()
            for entry, old in elsewhere:
                ending = f"/{between}{entry}/artifacts"
                ours = old.startswith("/") and old.endswith(ending)
                new = f"{home}{ending}"
                if ours and (_there(new) or not _there(old)):
                    yield table, key, column, entry, old, new
        if before != home:
            yield "experiments", "experiment_id", "artifact_location", study, before, home
