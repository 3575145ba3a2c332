"""Locks between processes; a lock is released when its process ends, even if it is killed."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from melanoma_lab.core.files import hash_text, replace_file

#: Largest number of characters that are read of a holder's name.
_LONGEST_NAME = 200


@contextmanager
def hold_lock(
    path: Path, *, on_busy: Callable[[str], None] | None = None, remove: bool = False
) -> Iterator[None]:
    """Hold a lock in the block; only one process has it at a time.

    Args:
        path: the lock's file; its folder must exist.
        on_busy: function that is called before waiting if another process has the lock. It gets
            that process's name from ``describe_process``, or ``another process``, and may raise an
            error to give up. A file next to the lock stores the name. None: wait silently.
        remove: delete the lock's file at the end. Only for callers that, once they have the lock,
            check whether the work has been done: a process that waits for the deleted file does
            not exclude one that comes later.

    Raises:
        OSError: the lock's file cannot be made.
    """
    # Threads of one process share the lock of a file that is deleted.
    lock = FileLock(path, is_singleton=remove)
    holder = path.with_suffix(".holder")
    with suppress(Timeout):
        lock.acquire(timeout=-1 if on_busy is None else 0)
    if on_busy is not None and not lock.is_locked:
        on_busy(_read_name(holder))
        lock.acquire()
    try:
        if on_busy is not None:
            with suppress(OSError):  # only for messages of other processes
                replace_file(holder, describe_process())
        yield
    finally:
        if on_busy is not None:
            with suppress(OSError):
                holder.unlink()
        if remove:
            with suppress(OSError):
                path.unlink()
        lock.release()


def get_lock_path(name: str) -> Path:
    """Return a user's own lock file in the temporary folder, for where no file may be added.

    Args:
        name: name of the locked object, such as a path; the file's name contains only its hash.
    """
    return Path(tempfile.gettempdir()) / f"melanoma_lab-{os.getuid()}-{hash_text(name, 16)}.lock"


def describe_process() -> str:
    """Return the name of this process for a message: ``Process 12 on host``."""
    return f"Process {os.getpid()} on {socket.gethostname()}"


def get_process_id() -> str:
    """Return the name of this process for a tag: ``host:12``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _read_name(holder: Path) -> str:
    try:
        name = holder.read_text(encoding="utf-8")[:_LONGEST_NAME]
    except (OSError, ValueError):  # it has just gone, or was never written
        name = ""
    return name or "another process"
