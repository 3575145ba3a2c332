"""The SQLite file of tracked runs: made whole or not at all, and what to do where it is of no use.

MLflow makes its tables by some seventy migrations and commits each for itself, so a process that is
killed meanwhile leaves a file that no later one can use. Here they are made in a temporary folder,
once for each version of MLflow, and kept as SQL in the user's cache folder; a new database gets
them in one transaction, which SQLite takes back where the process is killed.
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
from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.data.cache import get_cache_folder
from melanoma_lab.tracking.uris import build_artifact_location, build_mlflow_uri, sqlite_uri

#: Seconds to wait for another process that writes, as MLflow does.
_PATIENCE = 20.0
_FOREIGN = "this database is another program's, none of MLflow's."
_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table'"


class TrackingError(UserError):
    """Nothing can be recorded where ``tracking.uri`` points."""


def is_empty(path: Path) -> bool:
    """Whether a database has no tables: no file, one of zero bytes, or one with nothing in it.

    Args:
        path: the file, absolute.

    Raises:
        sqlite3.Error: it cannot be read, or is none.
    """
    if not path.exists():
        return True
    with _opened(path) as database:
        return not _tables_in(database)


def create_or_check_tables(path: Path) -> None:
    """Make MLflow's tables in an empty database; look whether those of another can be used.

    Args:
        path: the file, absolute; made where it is not there, as is its folder.

    Raises:
        TrackingError: its tables are not those of the MLflow that is installed.
        sqlite3.Error: it cannot be read or written, or is no SQLite database.
        OSError: its folder cannot be made.
    """
    tables = _tables()
    if is_empty(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, create=True) as database:
            database.execute("BEGIN IMMEDIATE")
            if not _tables_in(database):  # still, now that nobody else can write
                for statement in tables["statements"]:
                    database.execute(statement)
                _insert_default(database, tables["default"], path.parent)
            database.execute("COMMIT")
    with _opened(path) as database:
        names = _tables_in(database)
        found = _revision(database) if "alembic_version" in names else None
        if found == tables["revision"]:
            return
        ours = "experiments" in names  # the table that MLflow makes first
        # And its first row when all tables are made.
        used = ours and database.execute("SELECT 1 FROM experiments").fetchone() is not None
    why = _why_not(path, found, used=used) if ours else f"{_FOREIGN} {_aside(path)}"
    raise TrackingError(f"{describe_tracking_uri(sqlite_uri(path))}: {why}")


def explain_damage(path: Path, error: BaseException) -> str | None:
    """What is wrong with a database's file, and what to do; None where that is not the reason.

    Args:
        path: the file.
        error: the innermost that reading or writing it raised.
    """
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB":
        return f"this file is no SQLite database. {_aside(path)}"
    if name.startswith("SQLITE_CORRUPT"):
        return (
            f"this database is damaged ({error}). {_aside(path)} What the runs wrote into files "
            "(mlruns) is not affected; a copy of the database from before the damage works again."
        )
    return None


@contextmanager
def _opened(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    uri = f"{path.as_uri()}?mode={'rwc' if create else 'rw'}"
    # No isolation level: the sqlite3 module begins no transactions of its own.
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
    ) as database:
        yield database


def _tables_in(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute(_NAMES)}


def _revision(database: sqlite3.Connection) -> str | None:
    """The last migration that the tables have had."""
    row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _tables() -> dict[str, Any]:
    """What makes a database MLflow's.

    Returns:
        The SQL ``statements`` that make its tables; their ``revision``; and the row of the
        experiment ``default``, column -> value.
    """
    path = get_cache_folder(None) / "mlflow" / f"database-{version('mlflow')}.json"
    try:
        return dict(
            load_or_compute(
                path,
                lambda: read_checksummed_json(path),
                lambda: write_checksummed_json(path, _made()),
            )
        )
    except RunError:  # no cache folder that can be written
        return _made()


@functools.cache
def _made() -> dict[str, Any]:
    """Let MLflow make its tables where nobody looks, and read them."""
    import mlflow.db
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    silence_mlflow_logs()
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
        path = Path(folder) / "mlflow.db"
        mlflow.db.upgrade.main([build_mlflow_uri(sqlite_uri(path))], standalone_mode=False)
        with _opened(path) as database:
            first, *statements, last = database.iterdump()
            if (first, last) != ("BEGIN TRANSACTION;", "COMMIT;"):
                raise RuntimeError(f"expected one transaction, received {first} ... {last}")
            revision = _revision(database)
        # The first use adds the experiment to the tables.
        SqlAlchemyStore(build_mlflow_uri(sqlite_uri(path)), "/mlruns").engine.dispose()
        with _opened(path) as database:
            database.row_factory = sqlite3.Row
            (row,) = database.execute("SELECT * FROM experiments")
            return {"revision": revision, "statements": statements, "default": dict(row)}


def _insert_default(database: sqlite3.Connection, row: dict[str, Any], folder: Path) -> None:
    """Add the experiment that MLflow expects in every database.

    MLflow would do so at the first use, but pastes the path into the SQL text, where quotes or a
    colon in it make the statement another one.

    Args:
        database: with MLflow's tables.
        row: of the experiment, as ``_tables`` has it.
        folder: of the database.
    """
    now = int(time.time() * 1000)
    place = build_artifact_location(folder / "mlruns" / str(row["experiment_id"]))
    row = row | {"artifact_location": place, "creation_time": now, "last_update_time": now}
    columns, values = ", ".join(row), ", ".join("?" * len(row))
    database.execute(
        f"INSERT INTO experiments ({columns}) VALUES ({values})",  # noqa: S608 - MLflow's names
        tuple(row.values()),
    )


def silence_mlflow_logs() -> None:
    """Let MLflow, which has been imported, tell of nothing but by what it raises."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Above ERROR: a database that is full would be told with a traceback for every attempt.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    # urllib3 warns of every retry; what came of them is said once, at the end.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _why_not(path: Path, found: str | None, *, used: bool) -> str:
    """Why tables are not the expected ones, and what to do."""
    here = f"MLflow {version('mlflow')}"
    if found is not None and found not in _known_revisions():
        return (
            f"a newer MLflow than the one here ({here}) made or upgraded this database. Use it "
            "with that, or name another database."
        )
    if found is not None and used:
        file = shlex.quote(str(path))
        before = shlex.quote(str(_free(path, "before")))
        uri = shlex.quote(sqlite_uri(path))
        return (
            f"an older MLflow than the one here ({here}) made this database. Copy it, then upgrade "
            f"it: cp {file} {before} && {format_program('mlflow')} db upgrade {uri}"
        )
    if used:
        return f"{_FOREIGN} {_aside(path)}"
    return (
        "MLflow's tables in this database are not whole, and no run is recorded in it: the process "
        "that made them was killed. (If another program is making them right now, wait for it.) "
        f"{_aside(path)}"
    )


def _known_revisions() -> set[str]:
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = Path(mlflow.__file__).parent / "store" / "db_migrations"
    return {script.revision for script in ScriptDirectory(str(scripts)).walk_revisions()}


def _aside(path: Path) -> str:
    """The sentence that says how to go on without a database, and to lose nothing."""
    there = _free(path, "aside")
    files = [suffix for suffix in ("", "-journal", "-wal") if Path(f"{path}{suffix}").exists()]
    moves = [shlex.join(["mv", f"{path}{suffix}", f"{there}{suffix}"]) for suffix in files]
    return f"Move it aside, and a new one is made: {' && '.join(moves)}"


def _free(path: Path, word: str) -> Path:
    """A name for a copy that does not exist."""
    number, found = 1, path.with_name(f"{path.name}.{word}")
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{word}-{number}")
    return found
