"""Read small files from elsewhere with bounds on memory and time.

A page of nested YAML aliases, or a megabyte of brackets, can take gigabytes once it is parsed.
Therefore a file's bytes, depth and values, including those that its aliases repeat, are counted
before parsing. Damaged files are refused too: duplicate keys, numbers that are not finite, text
that is not UTF-8. Files of MLflow, Keras and Hydra stay far below these bounds.
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

#: Largest size of a JSON file in bytes, and largest number of its values; the audit of 400,000
#: images needs half of both.
MAX_JSON_BYTES: Final = 2**26
MAX_JSON_VALUES: Final = 2_000_000
#: Largest size of a YAML file in bytes, and largest number of its nodes with its aliases written
#: out; a configuration has some hundreds.
MAX_YAML_BYTES: Final = 2**20
MAX_YAML_NODES: Final = 50_000
#: A node of a YAML file counts as one more for each this many characters.
NODE_LENGTH: Final = 100
#: Largest depth of nested containers, in either format.
MAX_DEPTH: Final = 100
#: Largest length in characters of a text after references such as ``${seed}`` are resolved.
MAX_EXPANDED_LENGTH: Final = 2**27
#: Largest length of a number in characters.
MAX_NUMBER_LENGTH: Final = 300
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DIGITS: Final = frozenset("0123456789:._+-")
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def read_text(path: Path, limit: int) -> str:
    """Read a text file in UTF-8 of at most ``limit`` bytes.

    Raises:
        UserError: there is no such file, it is too large, or it is not text in UTF-8.
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

    Raises:
        UserError: the file cannot be read, is too large or too deep, or holds something else.
    """
    return _read_mapping(path, "JSON", parse_json, MAX_JSON_BYTES)


def parse_json(text: str) -> Any:
    """Parse a JSON text; refuse infinite numbers and duplicate keys.

    Args:
        text: the text, whose length the caller has checked.

    Raises:
        ValueError: the text is not such JSON, is too deep, or has too many values.
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
    """Refuse a JSON text with too many values or levels, without parsing it.

    Args:
        text: the text, whose length the caller has checked.

    Raises:
        ValueError: the text is too deep or has too many values.
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
    """Read a file that holds one YAML mapping of plain values only.

    Raises:
        UserError: the file cannot be read, is too large or too deep, or holds something else.
    """
    return _read_mapping(path, "YAML", _parse_yaml, MAX_YAML_BYTES)


def check_yaml_file(path: Path) -> None:
    """Refuse a YAML file that would take too much memory in the library that will read it.

    Raises:
        UserError: the file is too large or too deep, or its aliases or references expand too much.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        check_yaml(text)
        check_interpolation_growth(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({_first_line(error)}).") from error


def check_yaml(text: str) -> None:
    """Refuse a YAML text that is too deep or too large, with its aliases written out.

    Args:
        text: the text, whose length the caller has checked.

    Raises:
        ValueError: the text is too deep, or has too many nodes, an alias inside its own anchor, or
            a duplicate key.
        yaml.YAMLError: the text is not YAML.
    """
    sizes: dict[str, int] = {}
    stack = [_Node()]
    # The same parser reads it afterwards; another one might see other aliases.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Node(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(stack) > MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias *{truncate(event.anchor, 50)} inside its own definition")
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
    """A YAML container whose nodes are being counted."""

    anchor: str | None = None
    is_mapping: bool = False
    size: int = 1
    _parts: int = 0
    _keys: set[str] = field(default_factory=set)

    def add(self, size: int, key: str | None) -> None:
        self.size += size
        if self.size > MAX_YAML_NODES:
            raise ValueError(f"more than {MAX_YAML_NODES:,} values after its aliases are expanded")
        if self.is_mapping and self._parts % 2 == 0 and key is not None:
            if key in self._keys:
                raise ValueError(f"key {truncate(key, 50)} occurs twice")
            self._keys.add(key)
        self._parts += 1


def _check_number(event: yaml.ScalarEvent) -> None:
    """Refuse long numbers: YAML 1.1 reads 1:30:00 in base 60, which could take minutes."""
    digits = event.tag in _NUMBERS or set(event.value) <= _DIGITS
    if digits and len(event.value) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of more than {MAX_NUMBER_LENGTH} digits")


def check_interpolation_growth(text: str) -> None:
    """Refuse a configuration whose references, such as ``${seed}``, could expand to gigabytes.

    With n references that use each other, a text becomes at most 3^(n/3) times as long.

    Raises:
        ValueError: the text could become that long.
    """
    n = text.count("${")
    if n and len(text) * 3.0 ** (min(n, 300) / 3) > MAX_EXPANDED_LENGTH:
        raise ValueError(f"{n} references ${{...}}, which could expand to an enormous text")


def _read_mapping(path: Path, what: str, parse: Callable[[str], Any], limit: int) -> dict[str, Any]:
    text = read_text(path, limit)
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({_first_line(error)}).") from error
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
        raise ValueError(f"key {truncate(twice, 50)} occurs twice")
    return content


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"expected finite numbers, received {word}")


def _parse_finite_float(digits: str) -> float:
    value = float(digits)
    return value if abs(value) < float("inf") else _refuse_constant(truncate(digits, 50))


def _parse_int(digits: str) -> int:
    # Integers of 64 bits suffice for all files here; a much longer one cannot become a float.
    return (
        int(digits) if len(digits) <= len(str(-(2**64))) else _refuse_constant(truncate(digits, 50))
    )


def _first_line(error: Exception) -> str:
    return truncate(get_first_line(error))
