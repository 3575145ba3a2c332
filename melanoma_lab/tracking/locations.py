"""URIs of databases and artifacts of this machine, and updating them if a database was moved.

In an SQLite URI, SQLAlchemy reads options after ``?`` and decodes ``%41`` to ``A``. MLflow decodes
locations of artifacts in the same way, both paths and ``file:`` URIs.

MLflow stores absolute paths of artifacts in its database and has no command that changes them
(mlflow/mlflow#3144). When the lab opens an SQLite database that was moved, renamed or copied with
its artifacts, it updates the paths, so that everything finds the artifacts, including ``mlflow
ui``. A tag marks the lab's studies and holds the path of their artifacts relative to the database;
nothing else in it is changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from melanoma_lab.core.errors import UserError

SQLITE_PREFIX: Final = "sqlite:///"


def make_absolute_uri(uri: str) -> str:
    """Make the path of an SQLite URI absolute; return other URIs unchanged.

    MLflow keeps one connection for each URI, so one database must have one URI in every folder.
    """
    database = sqlite_path(uri)
    _, mark, options = uri.partition("?")
    return uri if database is None else f"{sqlite_uri(database)}{mark}{options}"


def build_mlflow_uri(uri: str) -> str:
    """Return the URI to give to MLflow; an SQLite path is absolute.

    For ``sqlite:///50%2541/runs.db`` MLflow would also create an empty folder ``50%2541``. It does
    not if the URI names a driver, so a URI with ``%`` gets one.
    """
    found = make_absolute_uri(uri)
    encoded = found.startswith(SQLITE_PREFIX) and "%" in found.partition("?")[0]
    return found.replace("sqlite:", "sqlite+pysqlite:", 1) if encoded else found


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of an SQLite URI's file; None for any other URI."""
    if not uri.startswith(SQLITE_PREFIX):
        return None
    return Path(unquote(uri.removeprefix(SQLITE_PREFIX).partition("?")[0])).resolve()


def sqlite_uri(path: Path) -> str:
    """Return the SQLite URI of a file."""
    return f"{SQLITE_PREFIX}{_escape_percent(path).replace('?', '%3F')}"


def local_folder(uri: str) -> Path | None:
    """Return the local folder of an artifact URI or path; None if it is not local."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    # "/a :b/c" has no scheme and "/n#1" no fragment, so absolute paths are not parsed as URIs.
    return Path(unquote(uri)) if uri.startswith("/") or not urlsplit(uri).scheme else None


def build_artifact_location(folder: Path) -> str:
    """Return a folder as an artifact location for MLflow, which decodes ``%``."""
    return _escape_percent(folder)


def _escape_percent(path: Path) -> str:
    return str(path).replace("%", "%25")


#: Tag of an experiment: the folder of its artifacts, relative to that of the database.
FOLDER_TAG = "melanoma_lab.folder"
#: Tag of an experiment: the absolute path of the database in which it was created.
BEGUN_TAG = "melanoma_lab.begun_in"
#: Seconds to wait while another process writes.
LOCK_TIMEOUT = 60
#: Columns with paths of artifacts: table, id column, path column, sub-folder of the study's folder.
PATHS = (
    ("runs", "run_uuid", "artifact_uri", ""),
    ("logged_models", "model_id", "artifact_location", "models/"),
)


def build_location_tags(uri: str, root: str | None) -> dict[str, str]:
    """Return tags of a new study with the places of its artifacts and its database.

    Args:
        root: location of the study's artifacts; None if a server chooses it.
    """
    database = sqlite_path(uri)
    folder = None if root is None else local_folder(root)
    if database is None or folder is None or not folder.is_relative_to(database.parent):
        return {}
    return {FOLDER_TAG: str(folder.relative_to(database.parent)), BEGUN_TAG: str(database)}


def identify_study(uri: str, study: str) -> str:
    """Return an id of a study's database that survives moving or renaming its folder.

    Returns:
        The URI with an absolute path; for a study that was moved, the URI with which it was
        created. A copy whose original still exists has its own URI as id.
    """
    database = sqlite_path(uri)
    here = make_absolute_uri(uri)
    if database is None or not database.is_file():
        return here
    try:
        with closing(_open_database(database)) as connection:
            row = connection.execute(
                "SELECT t.value FROM experiments e JOIN experiment_tags t USING (experiment_id)"
                " WHERE e.name = ? AND t.key = ?",
                (study, BEGUN_TAG),
            ).fetchone()
    except sqlite3.Error:  # not MLflow's database; connecting to it reports that
        return here
    if row is None:
        return here
    origin = Path(row[0])
    try:
        # After a move, a link to the new place may remain at the old one.
        copied = origin.exists() and not origin.samefile(database)
    except OSError:  # this user has no permission to look
        copied = False
    return here if copied else sqlite_uri(origin)


def relocate_artifacts(uri: str) -> int:
    """Update artifact paths in an SQLite database that was moved or copied with its artifacts.

    Artifacts that exist only at the old place keep their path. New runs of every study write
    their artifacts to the new place.

    Returns:
        The number of runs whose artifacts were found at a new place; 0 if nothing was moved, or if
        no artifacts were found there.

    Raises:
        UserError: paths must be updated, but the database is read-only.
    """
    database = sqlite_path(uri)
    if database is None or not database.is_file():
        return 0
    with closing(_open_database(database)) as connection:
        if not _has_mlflow_tables(connection) or not any(_changes(connection, database.parent)):
            return 0
        try:
            return _update_paths(connection, database.parent)
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
                raise
            raise UserError(
                f"{database} was moved or copied: the paths of its artifacts must be updated, "
                "but you may not write to it. Copy its folder to a place where you may write, "
                "and use the copy."
            ) from None


def _update_paths(connection: sqlite3.Connection, here: Path) -> int:
    """Write all changed paths; return the number of runs whose artifacts exist there."""
    connection.execute("BEGIN IMMEDIATE")
    changes = list(_changes(connection, here))  # again: another process may have updated them
    for table, key, column, entry, old, new in changes:
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE {key} = ?",  # noqa: S608 - constant names
            (new, entry),
        )
        if table == "logged_models":
            connection.execute(  # the registered versions of the model
                "UPDATE model_versions SET storage_location = ? WHERE storage_location = ?",
                (new, old),
            )
    connection.commit()
    return sum(table == "runs" and _folder_exists(new) for table, *_, new in changes)


def _folder_exists(uri: str) -> bool:
    """Return whether a folder of artifacts exists; False if this user has no permission to look."""
    folder = local_folder(uri)
    try:
        return folder is not None and folder.exists()
    except OSError:
        return False


def _open_database(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=LOCK_TIMEOUT, isolation_level=None)


def _has_mlflow_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the database has all of MLflow's tables that are updated here."""
    wanted = {"experiments", "experiment_tags", "model_versions", *(path[0] for path in PATHS)}
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return wanted <= {name for (name,) in found}


def _changes(
    connection: sqlite3.Connection, here: Path
) -> Iterator[tuple[str, str, str, object, str, str]]:
    """Yield the paths to update: table, id column, path column, id, old path, new path."""
    studies = connection.execute(
        "SELECT e.experiment_id, e.artifact_location, t.value"
        " FROM experiments e JOIN experiment_tags t USING (experiment_id) WHERE t.key = ?",
        (FOLDER_TAG,),
    ).fetchall()
    for study, before, folder in studies:
        root = build_artifact_location(here / folder)
        for table, key, column, subfolder in PATHS:
            elsewhere = connection.execute(
                f"SELECT {key}, {column} FROM {table}"  # noqa: S608 - constant names
                f" WHERE experiment_id = ? AND {column} != ? || {key} || '/artifacts'",
                (study, f"{root}/{subfolder}"),
            ).fetchall()
            for entry, old in elsewhere:
                ending = f"/{subfolder}{entry}/artifacts"
                ours = old.startswith("/") and old.endswith(ending)
                new = f"{root}{ending}"
                if ours and (_folder_exists(new) or not _folder_exists(old)):
                    yield table, key, column, entry, old, new
        if before != root:
            yield "experiments", "experiment_id", "artifact_location", study, before, root
