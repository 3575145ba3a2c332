"""One process tunes a study at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from melanoma_lab.core.errors import RunError


@contextmanager
def lock_search(folder: Path, study: str) -> Iterator[Path]:
    """Be the only process that tunes a study, while the block lasts.

    Args:
        folder: of the study's searches; made if it is not there.
        study: its name.

    Yields:
        The folder.

    Raises:
        RunError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "Another process"
        raise RunError(
            f"{who} is tuning study={study}. Let it finish, or choose another study=NAME."
        ) from None
    try:
        holder.write_text(f"Process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield folder
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
