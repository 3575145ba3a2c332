"""Where a run comes from, as its tags and parameters tell: the code's commit, the configuration."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final


def flatten_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys; lists and mappings in lists as JSON.

    Args:
        config: plain containers, as OmegaConf.to_container gives them.
        prefix: put before every key.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten_params(value, f"{name}."))
        elif isinstance(value, str):
            flat[name] = value
        else:
            flat[name] = json.dumps(value)
    return flat


#: The commit where the lab is no clone.
UNKNOWN_COMMIT: Final = "unknown"
#: What follows a commit that files differ from.
DIRTY_SUFFIX: Final = "+changes"


def shorten_commit(commit: str, digits: int) -> str:
    """What ``git_commit`` gave, with the beginning of its hash."""
    return commit[:digits] + DIRTY_SUFFIX * commit.endswith(DIRTY_SUFFIX)


@functools.cache
def git_commit() -> str:
    """The commit of the lab's own code, ``+changes`` where files differ from it, or ``unknown``.

    Asked for once a process: its code was loaded from the files as they were.
    """
    package = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "--", "__main__.py"):
            return UNKNOWN_COMMIT  # installed below some other project's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "HEAD") + (DIRTY_SUFFIX if changed else "")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN_COMMIT
