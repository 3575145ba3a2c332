"""Tracking URIs, as far as they name a file of this machine."""

from __future__ import annotations

from pathlib import Path


def absolute(uri: str) -> str:
    """The same place from whatever folder: MLflow keeps a connection for each URI."""
    database = sqlite_path(uri)
    return f"sqlite:///{database}" if database else uri


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI, absolute."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).resolve() if uri.startswith(prefix) else None
