"""The declared search space: dotted keys, their values, and the conditions between them.

    optimizer.learning_rate: {min: 1e-5, max: 1e-2, log: true}
    optimizer: [adam, sgd]
    optimizer.momentum: {min: 0, max: 0.95, when: {optimizer: sgd}}

``when`` may be left out if it follows from the configuration: a key that only some of the searched
options have is searched with those options only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from numbers import Real
from typing import Any, Literal

from melanoma_lab.config.overrides import format_override_value, parse_override_value
from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.registry import OPTIONS

#: The keys of a mapping that declares a searched key.
DECLARATION_KEYS = ("choices", "log", "max", "min", "step", "when")
#: The number of values that a grid search tries of a range without a step.
CUTS = 10
#: Keys that all trials must share, or that do not affect how good a network is.
UNSEARCHABLE_KEYS = (
    *("against", "arm", "audit", "cache", "dataset", "images", "members", "metric", "model"),
    *("output", "reference"),
    *("seed", "split", "study", "task", "tracking", "tuner", "training.devices", "training.resume"),
    *("training.stop_after", "training.threads"),
)
#: Keys below ``UNSEARCHABLE_KEYS`` that may be searched nevertheless.
SEARCHABLE_DATASET_KEYS = ("dataset.image_size", "dataset.resize")

#: Key -> its value as in a Hydra override; keys whose condition is false are missing.
Values = Mapping[str, str]


@dataclass(frozen=True)
class HyperParameter:
    """A searched key and its values.

    Attributes:
        key: a dotted key, or the name of a group.
        low: the smallest value of a range; NaN for choices.
        high: the largest value of a range; NaN for choices.
        step: the difference of neighbouring values, or their ratio if ``log``; None if any value of
            the range may be drawn.
        log: whether equal ratios are equally likely, rather than equal differences.
        choices: the values of kind ``choice`` or ``bool``, as in Hydra overrides; empty for ranges.
        when: a condition: other keys, each with those of its choices under which this one is
            searched, as in Hydra overrides.
    """

    key: str
    kind: Literal["float", "int", "choice", "bool"]
    low: float = math.nan
    high: float = math.nan
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_group(self) -> bool:
        """Whether the key is a group, whose options are the choices."""
        return is_group(self.key)

    @property
    def is_range(self) -> bool:
        """Whether its values are the numbers of a range."""
        return self.kind in {"float", "int"}

    @property
    def labels(self) -> tuple[str, ...]:
        """The texts of its choices in the report, in order; empty for ranges."""
        if self.kind == "bool":  # in this order, whichever was declared
            return ("false", "true")
        return tuple(map(label_choice, self.choices))

    def is_active(self, values: Values) -> bool:
        """Return whether its condition holds for these values of other keys."""
        return all(values.get(key) in choices for key, choices in self.when.items())

    def contains(self, value: object) -> bool:
        """Return whether a value, as a Python object, lies in the range or among the choices."""
        if not self.is_range:
            return label_value(value) in self.labels
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        # Steps on a logarithmic scale may miss the end by rounding.
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        return self.low - slack <= float(value) <= self.high + slack

    def corners(self) -> tuple[str, ...]:
        """Return all choices, or both ends of a range, as in Hydra overrides."""
        if not self.is_range:
            return self.choices
        return tuple(dict.fromkeys(self.format(end) for end in (self.low, self.grid()[-1])))

    def grid(self) -> list[float]:
        """Return the values of a range that a grid search tries."""
        if self.step is None:
            if self.kind == "int" and not self.log:
                return [float(n) for n in range(int(self.low), int(self.high) + 1)]
            shares = [i / (CUTS - 1) for i in range(CUTS)]
            found = [self.low + share * (self.high - self.low) for share in shares]
            if self.log:
                found = [self.low * (self.high / self.low) ** share for share in shares]
            return list(dict.fromkeys(float(round(v)) if self.kind == "int" else v for v in found))
        n = (
            math.log(self.high / self.low, self.step)
            if self.log
            else (self.high - self.low) / self.step
        )
        factors = range(math.floor(n + 1e-8) + 1)
        return [self.low * self.step**i if self.log else self.low + self.step * i for i in factors]

    def count_values(self) -> float:
        """Return the number of values; infinity for a continuous range."""
        if not self.is_range:
            return len(self.choices)
        return math.inf if self.step is None and self.kind == "float" else len(self.grid())

    def format(self, value: float) -> str:
        """Format a value of a range as in a Hydra override."""
        return str(round(value)) if self.kind == "int" else repr(float(value))


def is_group(key: str) -> bool:
    """Return whether a key chooses an option of a group: ``optimizer``, ``augmentation/before``."""
    return key.partition("/")[0] in {group for group, _ in OPTIONS}


def label_value(value: object) -> str:
    """Format a value for the report, numbers to ten digits: ``null``, ``[a, 0.1]``.

    Args:
        value: a string, number, boolean, None, a scalar of NumPy, or a list or tuple of them.
    """
    if hasattr(value, "item"):  # a scalar of NumPy, which this module does not load
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(label_value, value))}]"
    return f"{float(value):.10g}" if isinstance(value, int | float) else str(value)


@cache
def label_choice(text: str) -> str:
    """Format a choice, given as in a Hydra override, for the report."""
    return label_value(parse_override_value(text))


def parse_space(space: Mapping[str, Any]) -> list[HyperParameter]:
    """Parse a declared space, without checking that the configuration has its keys.

    Returns:
        The searched keys, each after the keys that its condition names.

    Raises:
        UserError: a declaration is invalid.
    """
    require(space, "tuner.space", "at least one key to search, or null for the default", "none")
    entries = [_parse_entry(str(key), declaration) for key, declaration in space.items()]
    by_key = {entry.key: entry for entry in entries}
    for entry in entries:
        for other, choices in entry.when.items():
            _check_condition(entry.key, other, choices, by_key)
    return sort_parents_first(entries)


def _parse_entry(key: str, declaration: Any) -> HyperParameter:
    where = f"tuner.space: {key}"
    _refuse_key(key)
    if isinstance(declaration, Sequence) and not isinstance(declaration, str):
        declaration = {"choices": declaration}
    if not isinstance(declaration, Mapping):
        raise UserError(
            f"{where}: expected a list of choices, or {{min: ..., max: ...}}; received "
            f"{declaration!r}."
        )
    for name in declaration:
        if name not in DECLARATION_KEYS:
            raise UserError(
                f"{where}.{name}: no such key. {suggest_choice(str(name), DECLARATION_KEYS)}"
            )
    when = _parse_conditions(where, declaration.get("when"))
    if "choices" in declaration:
        for name in ("min", "max", "step", "log"):
            absent = name not in declaration
            require(absent, f"{where}.{name}", "no other key beside choices", declaration.get(name))
        return replace(_parse_choices(where, key, declaration["choices"]), when=when)
    if is_group(key):
        raise UserError(f"{where}: a group; expected a list of its options, such as [a, b].")
    return replace(_parse_range(where, key, declaration), when=when)


def _refuse_key(key: str) -> None:
    """Refuse keys that all trials must share."""
    group, _, name = key.rpartition(".")
    if name == "name" and is_group(group):
        raise UserError(f"tuner.space: {key}: expected the group, {group}: [...].")
    for shared in UNSEARCHABLE_KEYS:
        if key not in SEARCHABLE_DATASET_KEYS and (key == shared or key.startswith(f"{shared}.")):
            raise UserError(
                f"tuner.space: {key}: it cannot be searched: all trials share it, so that their "
                "scores are of the same images and seeds, in one study."
            )


def _parse_choices(where: str, key: str, choices: Any) -> HyperParameter:
    require(
        isinstance(choices, Sequence) and not isinstance(choices, str) and choices,
        where,
        "a list of choices",
        choices,
    )
    texts = tuple(format_override_value(choice) for choice in choices)
    different = len(set(map(label_choice, texts))) == len(texts)
    what = "different choices, also without quotes and with numbers to ten digits"
    require(different, where, what, list(choices))
    boolean = all(isinstance(choice, bool) for choice in choices)
    return HyperParameter(key, "bool" if boolean else "choice", choices=texts)


def _parse_range(where: str, key: str, declaration: Mapping[str, Any]) -> HyperParameter:
    for name in ("min", "max"):
        present = name in declaration
        require(present, where, "min and max, or a list of choices", dict(declaration))
    low, high = declaration["min"], declaration["max"]
    step, log = declaration.get("step"), declaration.get("log", False)
    require(isinstance(log, bool), f"{where}.log", "true or false", log)
    for name, value in (("min", low), ("max", high), ("step", step)):
        if not _is_number(value) and not (name == "step" and value is None):
            raise UserError(f"{where}.{name}: expected a number; received {value!r}.")
    require(low < high, where, "a min below max", f"min {low}, max {high}")
    require(not log or low > 0, f"{where}.min", "more than 0 where log is true", low)
    require(
        step is None or (step > 1 if log else 0 < step <= high - low),
        f"{where}.step",
        "more than 1 where log is true, else more than 0 and at most max - min",
        step,
    )
    whole = all(isinstance(value, int) for value in (low, high, step or 1))
    return HyperParameter(
        key,
        "int" if whole else "float",
        low=float(low),
        high=float(high),
        step=None if step is None else float(step),
        log=log,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parse_conditions(where: str, when: Any) -> dict[str, tuple[str, ...]]:
    if when is None:
        return {}
    require(isinstance(when, Mapping) and when, f"{where}.when", "{key: choice or choices}", when)
    lists = {
        str(key): choices if isinstance(choices, Sequence) and not isinstance(choices, str)
        else [choices]
        for key, choices in when.items()
    }  # fmt: skip
    return {key: tuple(map(format_override_value, choices)) for key, choices in lists.items()}


def _check_condition(
    key: str, other: str, choices: Sequence[str], by_key: Mapping[str, HyperParameter]
) -> None:
    where = f"tuner.space: {key}.when: {other}"
    if other not in by_key:
        raise UserError(f"{where}: this key is not searched. {suggest_choice(other, by_key)}")
    known = by_key[other].choices
    require(known, where, "a key that has choices, not a range", "a range")
    require(other != key, where, "another key", "the same")
    for choice in choices:
        if choice not in known:
            raise UserError(f"{where}: no such choice {choice}. {suggest_choice(choice, known)}")


def sort_parents_first(entries: Sequence[HyperParameter]) -> list[HyperParameter]:
    """Sort keys so that each comes after those that its condition names.

    Raises:
        UserError: conditions name each other in a circle.
    """
    by_key = {entry.key: entry for entry in entries}
    ordered: dict[str, HyperParameter] = {}

    def add(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            raise UserError(
                f"tuner.space: {' when '.join((*path[path.index(key) :], key))}: circular "
                "conditions."
            )
        for parent in by_key[key].when:
            add(parent, (*path, key))
        ordered.setdefault(key, by_key[key])

    for key in by_key:
        add(key, ())
    return list(ordered.values())
