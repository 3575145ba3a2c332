"""The SQLite database of tracked runs: created in one transaction, and checked with clear errors.

MLflow creates its tables by some seventy migrations and commits each separately, so a process that
is killed meanwhile leaves a file that cannot be used. Here the tables are created in a temporary
folder, once for each version of MLflow, and stored as SQL in the user's cache folder. A new
database gets them in one transaction, which SQLite rolls back if the process is killed.
"""

from __future__ import annotations

import functools
import logging
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import describe_tracking_uri
from melanoma_lab.core.checksummed_files import (
    load_or_compute,
    read_checksummed_json,
    write_checksummed_json,
)
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.tracking.locations import build_artifact_location, build_mlflow_uri, sqlite_uri

#: Seconds to wait while another process writes, as in MLflow.
_LOCK_TIMEOUT = 20.0
_FOREIGN = "this database was created by another program, not by MLflow."
_LIST_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


class TrackingError(UserError):
    """The server or database at ``tracking.uri`` cannot be used."""


def is_empty(path: Path) -> bool:
    """Return whether a database has no tables: the file is missing, has no bytes or no tables.

    Raises:
        sqlite3.Error: the file cannot be read, or is no SQLite database.
    """
    if not path.exists():
        return True
    with _open_database(path) as database:
        return not _tables_in(database)


def create_or_check_tables(path: Path) -> None:
    """Create MLflow's tables in an empty database; check the tables of any other.

    Args:
        path: the absolute path of the file; it and its folder are created if they are missing.

    Raises:
        TrackingError: the tables are not those of the installed MLflow.
        sqlite3.Error: the file cannot be read or written, or is no SQLite database.
        OSError: the folder cannot be created.
    """
    tables = _tables()
    if is_empty(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_database(path, create=True) as database:
            database.execute("BEGIN IMMEDIATE")
            if not _tables_in(database):  # check again: from here on no other process can write
                for statement in tables["statements"]:
                    database.execute(statement)
                _insert_default(database, tables["default"], path.parent)
            database.execute("COMMIT")
    with _open_database(path) as database:
        names = _tables_in(database)
        found = _revision(database) if "alembic_version" in names else None
        if found == tables["revision"]:
            return
        ours = "experiments" in names  # the table that MLflow creates first
        # MLflow adds its first row after all tables are created.
        used = ours and database.execute("SELECT 1 FROM experiments").fetchone() is not None
    why = (
        _explain_wrong_tables(path, found, used=used)
        if ours
        else f"{_FOREIGN} {_advise_moving(path)}"
    )
    raise TrackingError(f"{describe_tracking_uri(sqlite_uri(path))}: {why}")


def explain_damage(path: Path, error: BaseException) -> str | None:
    """Describe how a database's file is damaged and what to do.

    Returns:
        One or more sentences; None if the error has another reason.
    """
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB":
        return f"this file is not a SQLite database. {_advise_moving(path)}"
    if name.startswith("SQLITE_CORRUPT"):
        return (
            f"this database is damaged ({error}). {_advise_moving(path)} What the runs wrote into "
            "files (mlruns) is not affected; a copy of the database from before the damage works "
            "again."
        )
    return None


@contextmanager
def _open_database(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    uri = f"{path.as_uri()}?mode={'rwc' if create else 'rw'}"
    # Without an isolation level, the sqlite3 module does not begin transactions itself.
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT, isolation_level=None)
    ) as database:
        yield database


def _tables_in(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute(_LIST_TABLES)}


def _revision(database: sqlite3.Connection) -> str | None:
    """Return the id of the last migration of the tables; None if there was none."""
    row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _tables() -> dict[str, Any]:
    """Return how to create MLflow's tables, from the cache if possible.

    Returns:
        A dictionary of the SQL ``statements`` that create the tables; their ``revision``; and the
        row of the experiment ``default``, a dictionary of values by column.
    """
    path = get_cache_folder(None) / "mlflow" / f"database-{version('mlflow')}.json"
    try:
        return dict(
            load_or_compute(
                path,
                lambda: read_checksummed_json(path),
                lambda: write_checksummed_json(path, _dump_tables()),
            )
        )
    except RunError:  # the cache folder cannot be written
        return _dump_tables()


@functools.cache
def _dump_tables() -> dict[str, Any]:
    """Let MLflow create its tables in a temporary folder; return them as ``_tables`` does."""
    import mlflow.db
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    silence_mlflow_logs()
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
        path = Path(folder) / "mlflow.db"
        mlflow.db.upgrade.main([build_mlflow_uri(sqlite_uri(path))], standalone_mode=False)
        with _open_database(path) as database:
            first, *statements, last = database.iterdump()
            if (first, last) != ("BEGIN TRANSACTION;", "COMMIT;"):
                raise RuntimeError(f"expected one transaction, received {first} ... {last}")
            revision = _revision(database)
        # The first use adds the experiment to the tables.
        SqlAlchemyStore(build_mlflow_uri(sqlite_uri(path)), "/mlruns").engine.dispose()
        with _open_database(path) as database:
            database.row_factory = sqlite3.Row
            (row,) = database.execute("SELECT * FROM experiments")
            return {"revision": revision, "statements": statements, "default": dict(row)}


def _insert_default(database: sqlite3.Connection, row: dict[str, Any], folder: Path) -> None:
    """Add the experiment that MLflow expects in every database.

    MLflow adds it at the first use, but inserts the path into the SQL text without escaping, so
    that quotes or a colon in the path change the statement.
    """
    now = int(time.time() * 1000)
    location = build_artifact_location(folder / "mlruns" / str(row["experiment_id"]))
    row = row | {"artifact_location": location, "creation_time": now, "last_update_time": now}
    columns, values = ", ".join(row), ", ".join("?" * len(row))
    database.execute(
        f"INSERT INTO experiments ({columns}) VALUES ({values})",  # noqa: S608 - MLflow's names
        tuple(row.values()),
    )


def silence_mlflow_logs() -> None:
    """Silence the log messages of MLflow and its libraries; its exceptions say enough.

    Call it after MLflow has been imported.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Above ERROR, because MLflow logs a traceback for every attempt to write to a full disk.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    # urllib3 warns of every retry; the final error says enough.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _explain_wrong_tables(path: Path, found: str | None, *, used: bool) -> str:
    """Explain why MLflow's tables are not the expected ones, and what to do.

    Args:
        found: the revision of its tables; None if they have none.
        used: whether all tables have been created, so that runs may be recorded in them.
    """
    here = f"MLflow {version('mlflow')}"
    if found is not None and found not in _known_revisions():
        return (
            "this database was created or upgraded by a newer MLflow than the installed one "
            f"({here}). Use the newer version, or name another database."
        )
    if found is not None and used:
        file = shlex.quote(str(path))
        before = shlex.quote(str(_make_unused_path(path, "before")))
        uri = shlex.quote(sqlite_uri(path))
        return (
            f"this database was created by an older MLflow than the installed one ({here}). Copy "
            f"it, then upgrade it: cp {file} {before} && {format_program('mlflow')} db upgrade "
            f"{uri}"
        )
    if used:
        return f"{_FOREIGN} {_advise_moving(path)}"
    return (
        "MLflow's tables in this database are incomplete, and no run is recorded in it: the "
        "process that created them was killed. (If another program is creating them right now, "
        f"wait for it.) {_advise_moving(path)}"
    )


def _known_revisions() -> set[str]:
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = Path(mlflow.__file__).parent / "store" / "db_migrations"
    return {script.revision for script in ScriptDirectory(str(scripts)).walk_revisions()}


def _advise_moving(path: Path) -> str:
    """Return a sentence with the commands that move a database aside without losing data."""
    aside = _make_unused_path(path, "aside")
    suffixes = [suffix for suffix in ("", "-journal", "-wal") if Path(f"{path}{suffix}").exists()]
    moves = [shlex.join(["mv", f"{path}{suffix}", f"{aside}{suffix}"]) for suffix in suffixes]
    return f"Move it aside, and a new one will be created: {' && '.join(moves)}"


def _make_unused_path(path: Path, word: str) -> Path:
    """Return a path that does not exist, for a copy of a file: its name and a word."""
    number, unused = 1, path.with_name(f"{path.name}.{word}")
    while unused.exists():
        number += 1
        unused = path.with_name(f"{path.name}.{word}-{number}")
    return unused
