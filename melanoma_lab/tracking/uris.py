"""Tracking and artifact URIs that name files of this machine.

In an SQLite URI, SQLAlchemy reads options after ``?`` and decodes ``%41`` to ``A``. MLflow decodes
locations of artifacts in the same way, both paths and ``file:`` URIs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

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
