"""The two errors with which a command ends, apart from bugs.

The message says what is wrong, where, and what would be right; the entry point prints it on
standard error without a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from melanoma_lab.core.formatting import format_list, truncate

#: Largest number of valid words that a message lists.
MAX_CHOICES = 40


class UserError(Exception):
    """The user's input is wrong; the command exits with status 2."""


class RunError(Exception):
    """The work failed (training diverged, a disk is full); the command exits with status 1."""


def explain_os_error(error: OSError) -> str:
    """Describe an error of the operating system, with its file and, if known, a remedy."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: " Free some disk space, or run from a folder on another disk.",
        errno.EROFS: " Run from a folder that is writable.",
        errno.EACCES: " Run from a folder that you may write to.",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror}.{advice}"


def get_first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has no text."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def suggest_choice(word: str, valid: Iterable[str]) -> str:
    """Return ``"Did you mean X?"`` if a valid word is close to the given one, else list them."""
    choices = sorted(set(valid))
    listed = f"Valid: {format_list(choices, MAX_CHOICES)}." if choices else ""
    return suggest_similar(word, choices) or listed


def suggest_similar(word: str, valid: Iterable[str]) -> str:
    """Return ``"Did you mean X?"`` if a valid word is close to the one that was typed, else ""."""
    close = difflib.get_close_matches(word, sorted(set(valid)), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""


def require(condition: object, key: str, expected: str, received: object) -> None:
    """Raise an error about a key's value if a condition does not hold.

    Args:
        condition: whether the value is valid; any object, of which the truth counts.

    Raises:
        UserError: the condition does not hold.
    """
    if not condition:
        raise UserError(f"{key}: expected {expected}; received {truncate(received)}.")


def require_share(key: str, value: float) -> None:
    """Raise an error if a key's value is not between 0 and 1, both excluded."""
    require(0 < value < 1, key, "a share between 0 and 1", value)
