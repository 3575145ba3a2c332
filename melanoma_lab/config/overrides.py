"""Read and write overrides in the grammar of Hydra's command line: ``key=value``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

#: Words that Hydra does not read as text.
_NOT_TEXT = frozenset({"true", "false", "null", "nan", "inf"})


def parse_overrides(words: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides.

    Args:
        loader: finds the options that ``group=glob(*)`` matches; None: it matches none.

    Returns:
        One of Hydra's objects for each word.

    Raises:
        HydraException: a word cannot be read.
    """
    return list(OverridesParser.create(loader).parse_overrides(list(words)))


def parse_override_key(word: str) -> str:
    """Return the key or group of an override.

    Raises:
        HydraException: the override cannot be read.
    """
    return str(parse_overrides([word])[0].key_or_group)


def parse_override_value(text: str) -> Any:
    """Return the value of an override as a Python object: ``0.1``, ``None``, ``["a", 2]``.

    Args:
        text: the part of the override after the equals sign.

    Raises:
        HydraException: the value cannot be read.
    """
    return parse_overrides([f"key={text}"])[0].value()


def format_override_value(value: object) -> str:
    """Format a value for an override; ``parse_override_value`` is the inverse.

    Returns:
        A text such as ``adam``, ``0.1``, ``null``, ``[1,2]``, ``{min:0,max:1}``, ``"a,b"``.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ",".join(f"{key}:{format_override_value(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(format_override_value, value))}]"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][\w/.*-]*(?: [\w/.*-]+)*", text, re.ASCII)
    return text if plain and text.lower() not in _NOT_TEXT else quote_override_text(text)


def quote_override_text(text: str) -> str:
    """Put a text into quotes, in which Hydra reads every character literally."""
    # Hydra reads a backslash as an escape only before a quote.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'


def format_override(key: str, value: object) -> str:
    """Format an override for a shell, quoted if needed."""
    return shlex.quote(f"{key}={format_override_value(value)}")
