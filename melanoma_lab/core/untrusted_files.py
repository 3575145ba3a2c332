"""Read small files that come from elsewhere, within bounds on memory and time.

A page of nested YAML aliases, or a megabyte of brackets, comes to gigabytes once it is read. What
a file would come to is counted before anything is made of it: its bytes, its depth, its values and
what its aliases repeat. A damaged file is refused too: keys that are there twice, numbers that are
not finite, text that is not UTF-8. MLflow, Keras and Hydra write nothing near these bounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import truncate

#: Bytes of a JSON file, and what may be in it; the audit of 400,000 images needs half of that.
MAX_JSON_BYTES: Final = 2**26
MAX_JSON_VALUES: Final = 2_000_000
#: Bytes of a YAML file, and how many nodes it may come to; a configuration has some hundreds.
MAX_YAML_BYTES: Final = 2**20
MAX_YAML_NODES: Final = 50_000
#: A node of a YAML file counts once more for each so many characters.
NODE_LENGTH: Final = 100
#: Containers within containers, in either format.
MAX_DEPTH: Final = 100
#: Characters that a text with references such as ``${seed}`` may come to.
MAX_EXPANDED_LENGTH: Final = 2**27
#: Characters of a number.
MAX_NUMBER_LENGTH: Final = 300
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DIGITS: Final = frozenset("0123456789:._+-")
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def read_text(path: Path, limit: int) -> str:
    """Read a text file of at most so many bytes.

    Args:
        path: the file; UTF-8.
        limit: in bytes.

    Raises:
        UserError: there is no such file, it is larger, or it is no such text.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise UserError(f"{path}: no such file.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(content) > limit:
        raise UserError(f"{path}: expected at most {limit >> 20} MiB. Received a larger file.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8. Received {error.reason}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be read, is too large or too deep, or holds something else.
    """
    return _mapping(path, "JSON", parse_json, MAX_JSON_BYTES)


def parse_json(text: str) -> Any:
    """Parse a JSON text, of which every number is finite and every key of an object is there once.

    Args:
        text: of the length that the caller allows.

    Raises:
        ValueError: it is not JSON, or too deep or of too many values.
    """
    check_json(text)
    return json.loads(
        text,
        object_pairs_hook=_build_unique_object,
        parse_constant=_refuse_constant,
        parse_float=_parse_finite_float,
        parse_int=_parse_int,
    )


def check_json(text: str) -> None:
    """Refuse a JSON text of too many values or levels; whether it is JSON, its reader says.

    Args:
        text: of the length that the caller allows.

    Raises:
        ValueError: it is too deep or has too many values.
    """
    if sum(map(text.count, ",:[{")) > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
    depth = 0
    for token in _JSON_TOKEN.finditer(text):
        mark = text[token.start()]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels deep")
        elif mark in "]}":
            depth -= 1


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file that holds one YAML mapping, of plain values alone.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be read, is too large or too deep, or holds something else.
    """
    return _mapping(path, "YAML", _parse_yaml, MAX_YAML_BYTES)


def check_yaml_file(path: Path) -> None:
    """Refuse a YAML file that would come to far more than it is; it is read by somebody else.

    Args:
        path: the file.

    Raises:
        UserError: it is too large or too deep, or its aliases or references repeat too much.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        check_yaml(text)
        check_interpolation_growth(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({_reason(error)}).") from error


def check_yaml(text: str) -> None:
    """Refuse a YAML text that would come to far more than it is.

    Aliases count as what they stand for, written out.

    Args:
        text: of the length that the caller allows.

    Raises:
        ValueError: it is too deep, has too many nodes, an alias within what it stands for, or a
            key twice.
        yaml.YAMLError: it is not YAML.
    """
    sizes: dict[str, int] = {}
    stack = [_Node()]
    # By the same parser that reads it afterwards: another might see other aliases.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Node(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(stack) > MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias *{truncate(event.anchor, 50)} within what it stands for")
            size, key = sizes[event.anchor], None
        elif isinstance(event, yaml.ScalarEvent):
            _check_number(event)
            size, key = 1 + len(event.value) // NODE_LENGTH, event.value
            sizes.update({event.anchor: size} if event.anchor else {})
        elif isinstance(event, yaml.CollectionEndEvent):
            node, key = stack.pop(), None
            size = node.size
            sizes.update({node.anchor: size} if node.anchor else {})
        else:
            continue
        stack[-1].add(size, key)


@dataclass
class _Node:
    """A YAML container that is being counted."""

    anchor: str | None = None
    is_mapping: bool = False
    size: int = 1
    _parts: int = 0
    _keys: set[str] = field(default_factory=set)

    def add(self, size: int, key: str | None) -> None:
        self.size += size
        if self.size > MAX_YAML_NODES:
            raise ValueError(f"more than {MAX_YAML_NODES:,} values, its aliases written out")
        if self.is_mapping and self._parts % 2 == 0 and key is not None:
            if key in self._keys:
                raise ValueError(f"key {truncate(key, 50)} is there twice")
            self._keys.add(key)
        self._parts += 1


def _check_number(event: yaml.ScalarEvent) -> None:
    """Refuse a number that YAML 1.1 has to the base of 60, 1:30:00, and that would take minutes."""
    digits = event.tag in _NUMBERS or set(event.value) <= _DIGITS
    if digits and len(event.value) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of more than {MAX_NUMBER_LENGTH} digits")


def check_interpolation_growth(text: str) -> None:
    """Refuse a configuration whose references, such as ``${seed}``, could come to gigabytes.

    Of n references that use each other, a text becomes at most 3^(n/3) times as long.

    Args:
        text: of a configuration, its references not followed.

    Raises:
        ValueError: it could.
    """
    n = text.count("${")
    if n and len(text) * 3.0 ** (min(n, 300) / 3) > MAX_EXPANDED_LENGTH:
        raise ValueError(f"{n} references ${{...}}, which could repeat each other without end")


def _mapping(path: Path, what: str, parse: Callable[[str], Any], limit: int) -> dict[str, Any]:
    text = read_text(path, limit)
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({_reason(error)}).") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(
            f"{path}: expected keys and values in {what}. Received {type(content).__name__}."
        )
    return content


def _parse_yaml(text: str) -> Any:
    check_yaml(text)
    return yaml.safe_load(text)


def _build_unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"key {truncate(twice, 50)} is there twice")
    return content


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"expected finite numbers, received {word}")


def _parse_finite_float(digits: str) -> float:
    value = float(digits)
    return value if abs(value) < float("inf") else _refuse_constant(truncate(digits, 50))


def _parse_int(digits: str) -> int:
    # As long as that of any file here; a longer one cannot even become a float.
    return (
        int(digits) if len(digits) <= len(str(-(2**64))) else _refuse_constant(truncate(digits, 50))
    )


def _reason(error: Exception) -> str:
    return truncate(get_first_line(error))
