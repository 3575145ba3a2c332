"""Write a key and its value as they are typed in a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: Words that Hydra takes for something else than text.
_NOT_TEXT = frozenset({"true", "false", "null", "nan", "inf", "none"})


def format_override(key: str, value: str | Sequence[str]) -> str:
    """Return an override of the command line, quoted for Hydra and for a shell where needed.

    Args:
        key: such as ``dataset.classes``.
        value: a text, or a list of texts.
    """
    if isinstance(value, str):
        # ``none`` is the value of dataset.columns that does without a column.
        text = value if value == "none" else _quote(value)
    else:
        text = f"[{','.join(map(_quote, value))}]"
    return shlex.quote(f"{key}={text}")


def _quote(text: str) -> str:
    """A text in Hydra's quotes, unless Hydra takes it for that text without them."""
    plain = re.fullmatch(r"[A-Za-z_][\w/.*-]*(?: [\w/.*-]+)*", text, re.ASCII)
    if plain and text.lower() not in _NOT_TEXT:
        return text
    # Backslashes count double before a quote, and nowhere else.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'
