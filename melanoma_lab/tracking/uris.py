"""Tracking URIs, as far as they name a file of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PREFIX: Final = "sqlite:///"


def absolute(uri: str) -> str:
    """The same place from whatever folder: MLflow keeps a connection for each URI."""
    database = sqlite_path(uri)
    _, mark, options = uri.partition("?")
    return uri if database is None else f"{PREFIX}{database}{mark}{options}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI, absolute; None of another URI."""
    if not uri.startswith(PREFIX):
        return None
    return Path(uri.removeprefix(PREFIX).partition("?")[0]).resolve()
