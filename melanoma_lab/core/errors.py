"""The two ways a command ends badly, apart from a bug.

A message names what is wrong, where, and what would be right; the entry point prints it on
standard error without a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

#: Valid words that a message lists at most.
MAX_CHOICES = 40


class UserError(Exception):
    """What the user typed or gave is wrong; the command exits with status 2."""


class RunError(Exception):
    """The work itself failed (it diverged, a disk is full); the command exits with status 1."""


def explain_os_error(error: OSError) -> str:
    """What the operating system refused, on which file, and what to do where that is clear."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: " Make room, or run from a folder on another disk.",
        errno.EROFS: " Run from a folder that can be written.",
        errno.EACCES: " Run from a folder that is yours.",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror}.{advice}"


def truncate(text: object, limit: int = 200) -> str:
    """What the user gave, for a message: not longer than a few lines."""
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def format_list(names: Sequence[str], limit: int = 3) -> str:
    """List the first few names for a message, and say how many more there are.

    Args:
        names: all of them; each is shortened if it is very long.
        limit: of names that are listed.

    Returns:
        Such as ``a, b and c`` or ``a, b, c and 81 more``.
    """
    shown = [truncate(name, 80) for name in names[:limit]]
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def suggest_choice(word: str, valid: Iterable[str]) -> str:
    """The sentence that points from a misspelt word to a valid one.

    Args:
        word: what was typed.
        valid: what could have been typed.

    Returns:
        ``"Did you mean X?"`` where something is close, else ``"Valid: A, B, C."``.
    """
    choices = sorted(set(valid))
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Valid: {format_list(choices, MAX_CHOICES)}." if choices else ""
