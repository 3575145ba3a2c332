"""Describe the keys of the configuration: type, default, and the sentence above each in the schema.

The sentences stand only in the schema, as comments that begin with ``#:`` above a key.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING as UNSET
from omegaconf import OmegaConf

from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.registry import OPTIONS

_TYPE_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class KeyDescription:
    """A key of the configuration.

    Attributes:
        key: its name, with those of the sections above it.
        type: its type in words; the values of an enumeration.
        default: its default as it would be typed; empty if it has none.
        text: what it does; empty if the schema has no sentence.
    """

    key: str
    type: str
    default: str
    text: str


def describe_keys(
    schema: type, prefix: str = "", defaults: Mapping[str, Any] | None = None
) -> list[KeyDescription]:
    """Describe the keys of a class of the schema, and those of the sections within it.

    Args:
        schema: the dataclass; a key that names an option of a group, and ``name``, are left out.
        prefix: stands before each key, such as ``"dataset."``.
        defaults: values that replace the defaults of the class, as an option's YAML file does.
    """
    defaults = defaults or {}
    hints: dict[str, Any] = get_type_hints(schema)
    found: list[KeyDescription] = []
    for entry in fields(schema):
        annotation = hints[entry.name]
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if entry.name == "name" or _is_group(annotation, default):
            continue
        if isinstance(annotation, type) and is_dataclass(annotation):
            inner = defaults.get(entry.name, vars(default))
            found += describe_keys(annotation, f"{prefix}{entry.name}.", inner)
            continue
        found.append(
            KeyDescription(
                key=f"{prefix}{entry.name}",
                type=_format_type(annotation),
                default=_format_value(defaults.get(entry.name, default)),
                text=_find_sentence(schema, entry.name),
            )
        )
    return found


def describe_option(group: str, name: str) -> tuple[type, list[KeyDescription]]:
    """Describe an option of a group, from its YAML file in ``conf/`` and its class.

    Returns:
        The option's class, and its keys with the option's own defaults.

    Raises:
        LookupError: the file extends no declared class.
    """
    schema, values = _read_option(group, name)
    return schema, describe_keys(schema, f"{group.replace('/', '.')}.", values)


def read_head(path: Path) -> str:
    """Return the comment that a YAML file opens with, without Hydra's ``@package``."""
    head = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            head.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(head)


def list_options() -> dict[str, list[str]]:
    """Return the names of the options in ``conf/`` of each group that has classes, sorted."""
    declared = {group for group, _ in OPTIONS}
    found: dict[str, list[str]] = {}
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        group = path.parent.relative_to(CONF_DIR).as_posix()
        if group.partition("/")[0] in declared:
            found.setdefault(group, []).append(path.stem)
    return found


def _read_option(group: str, name: str) -> tuple[type, dict[str, Any]]:
    """Return an option's class and the values of its file and of the files that it extends."""
    file = OmegaConf.load(CONF_DIR / group / f"{name}.yaml")
    content = cast("dict[str, Any]", OmegaConf.to_container(file))
    schema: type | None = None
    values: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry.startswith("/schema/"):
            _, _, declared_in, option = entry.removesuffix("@_here_").split("/")
            schema = OPTIONS[declared_in, option]
        elif isinstance(entry, str) and entry != "_self_":
            *folders, option = entry.removesuffix("@_here_").lstrip("/").split("/")
            schema, values = _read_option("/".join(folders) or group, option)
    if schema is None:
        raise LookupError(f"{group}={name} has no class.")
    return schema, values | content


def _is_group(annotation: Any, default: Any) -> bool:
    """Return whether a key of the whole configuration stands for a group of options."""
    return is_dataclass(annotation) and default == UNSET


def _find_sentence(schema: type, key: str) -> str:
    """Return the comment of a key, in the class or else in the nearest base class that has one."""
    sentences = (_read_sentences(base).get(key) for base in schema.__mro__ if is_dataclass(base))
    return next((sentence for sentence in sentences if sentence), "")


@cache
def _read_sentences(schema: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    return {
        node.target.id: " ".join(_read_comment_above(lines, node.lineno - 1))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _read_comment_above(lines: list[str], row: int) -> list[str]:
    """Return the lines of the comment ``#:`` right above a row, counted from 0."""
    found: list[str] = []
    while row and lines[row - 1].strip().startswith("#:"):
        row -= 1
        found.insert(0, lines[row].strip().removeprefix("#:").strip())
    return found


def _format_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        null_last = sorted(arguments, key=lambda part: part is NoneType)
        return " or ".join(map(_format_type, null_last))
    if annotation is NoneType:
        return "null"
    if origin is list:
        return f"list: {_format_type(arguments[0])}"
    if origin is dict:
        return f"mapping: {_format_type(arguments[0])} to {_format_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(member.value) for member in annotation)
    return _TYPE_NAMES.get(annotation, "any value")


def _format_value(value: Any) -> str:
    if value is MISSING or value == UNSET:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_format_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(_format_items(value))}}}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "''" if value == "" else str(value)


def _format_items(value: Mapping[Any, Any]) -> Iterator[str]:
    return (f"{key}: {_format_value(inner)}" for key, inner in value.items())
