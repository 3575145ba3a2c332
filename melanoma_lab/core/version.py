"""The version of melanoma_lab, and the commit of its code."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

try:
    __version__ = version("melanoma-lab")
except PackageNotFoundError:  # imported from a clone that is not installed
    __version__ = "0.1.0"

#: Used instead of a commit if the lab's code is not in a clone.
UNKNOWN_COMMIT: Final = "unknown"
#: Appended to the commit if files differ from it.
DIRTY_SUFFIX: Final = "+changes"


def shorten_commit(commit: str, digits: int) -> str:
    """Shorten the hash in a result of ``git_commit``."""
    return commit[:digits] + DIRTY_SUFFIX * commit.endswith(DIRTY_SUFFIX)


@functools.cache
def git_commit() -> str:
    """Return the commit of the lab's code, with ``+changes`` if files differ, or ``unknown``.

    Cached, because changes after the start do not affect the code that the process has loaded.
    """
    package = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "--", "__main__.py"):
            return UNKNOWN_COMMIT  # installed inside the repository of another project
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "HEAD") + (DIRTY_SUFFIX if changed else "")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN_COMMIT
