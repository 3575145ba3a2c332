"""URIs of tracking and of artifacts, as far as they name files of this machine.

In an SQLite URI SQLAlchemy takes what follows ``?`` for options, and decodes ``%41`` to ``A``.
MLflow decodes likewise where artifacts lie, be it a path or a ``file:`` URI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

SQLITE_PREFIX: Final = "sqlite:///"


def make_absolute_uri(uri: str) -> str:
    """The same place from whatever folder: MLflow keeps a connection for each URI."""
    database = sqlite_path(uri)
    _, mark, options = uri.partition("?")
    return uri if database is None else f"{sqlite_uri(database)}{mark}{options}"


def build_mlflow_uri(uri: str) -> str:
    """The same place as MLflow is to be told it.

    Beside ``sqlite:///50%2541/runs.db`` it would make an empty folder ``50%2541``; it does so only
    where no driver is named.
    """
    found = make_absolute_uri(uri)
    encoded = found.startswith(SQLITE_PREFIX) and "%" in found.partition("?")[0]
    return found.replace("sqlite:", "sqlite+pysqlite:", 1) if encoded else found


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI, absolute; None of another URI."""
    if not uri.startswith(SQLITE_PREFIX):
        return None
    return Path(unquote(uri.removeprefix(SQLITE_PREFIX).partition("?")[0])).resolve()


def sqlite_uri(path: Path) -> str:
    """The SQLite URI of a file."""
    return f"{SQLITE_PREFIX}{_quoted(path).replace('?', '%3F')}"


def local_folder(uri: str) -> Path | None:
    """The folder of this machine that an artifact URI or path names; None where it names none."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    # In "/a :b/c" and "/n#1" nothing is a scheme or a fragment.
    return Path(unquote(uri)) if uri.startswith("/") or not urlsplit(uri).scheme else None


def build_artifact_location(folder: Path) -> str:
    """What MLflow is told of a folder for artifacts, so that it writes into that one."""
    return _quoted(folder)


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25")
