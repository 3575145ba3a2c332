"""A declared space held against the configuration: every key, every end of a range, every choice.

A trial is composed as a user's command would be, so the same checks refuse what is wrong; here
they are asked before the first trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from melanoma_lab.config.arm import Arm, parse_arm
from melanoma_lab.config.compose import compose_config, compose_unchecked
from melanoma_lab.config.overrides import parse_override_key, parse_override_value
from melanoma_lab.config.schema import Config
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.search_space import HyperParameter, Values, is_group, sort_parents_first

#: Combinations of ends and choices that are checked, at most, beside each of them on its own.
COMBINATIONS = 32


@dataclass(frozen=True)
class TuneCommand:
    """What the user typed, as far as a trial shares it.

    Attributes:
        overrides: without ``task`` and ``tuner``.
        config_dir: a folder of the user's own presets and options.
        tuner_overrides: the overrides of ``tuner``, which say nothing to a trial.
    """

    overrides: tuple[str, ...]
    config_dir: str | Path | None = None
    tuner_overrides: tuple[str, ...] = ()

    @classmethod
    def typed(cls, overrides: Sequence[str], config_dir: str | Path | None = None) -> TuneCommand:
        """Of a ``tune`` command's overrides."""
        keys = {override: parse_override_key(override) for override in overrides}
        return cls(
            tuple(o for o in overrides if not _of_tuner(keys[o])),
            config_dir,
            tuple(o for o in overrides if _of_tuner(keys[o]) and keys[o] != "task"),
        )

    def with_values(self, values: Values) -> list[str]:
        """The overrides of a trial; a proposed value counts instead of a typed one."""
        kept = [o for o in self.overrides if parse_override_key(o) not in values]
        return [*kept, *(f"{key}={text}" for key, text in values.items())]

    def configure(self, values: Values) -> tuple[Config, Arm]:
        """A trial's configuration, composed and checked as any command's.

        Raises:
            UserError: these values cannot be, or not together.
        """
        config, _ = compose_config(self.with_values(values), self.config_dir)
        return config, parse_arm(self.overrides)


def _of_tuner(key: str) -> bool:
    return key in {"task", "tuner"} or key.startswith("tuner.")


class ConfigChecker:
    """Asks the configuration whether values may be; composes once for each choice of groups.

    Args:
        command: what the trials share.
    """

    def __init__(self, command: TuneCommand) -> None:
        self._command = command
        self._composed: dict[tuple[tuple[str, str], ...], DictConfig] = {}

    def compose(self, groups: Values) -> DictConfig:
        """What Hydra composes for a choice of groups, unchecked.

        Raises:
            UserError: it composes nothing.
        """
        chosen = tuple(sorted(groups.items()))
        if chosen not in self._composed:
            overrides = self._command.with_values(dict(chosen))
            try:
                self._composed[chosen] = compose_unchecked(overrides, self._command.config_dir)
            except HydraException as error:
                raise UserError(explain_hydra_error(error)) from error
        return self._composed[chosen]

    def check(self, values: Values) -> None:
        """Refuse values that cannot be.

        Raises:
            UserError: naming the key, and the nearest where there is none of the name.
        """
        composed = OmegaConf.create(
            OmegaConf.to_container(self.compose(_groups(values)), resolve=False)
        )
        for key, text in values.items():
            if not is_group(key):
                if not _has(composed, key):
                    _refuse(self._command, {**_groups(values), key: text})
                OmegaConf.update(composed, key, parse_override_value(text), merge=True)
        validate_config(cast("DictConfig", composed))

    def has(self, groups: Values, key: str) -> bool:
        """Whether the configuration has a key, or a group, under a choice of groups."""
        return _has(self.compose(groups), key.replace("/", "."))

    def value(self, groups: Values, key: str) -> Any:
        """What a key has where nobody searches it."""
        return OmegaConf.select(self.compose(groups), key)


def _refuse(command: TuneCommand, values: Values) -> None:
    """Have the configuration say why it has no such key."""
    compose_config(command.with_values(values), command.config_dir)
    key = list(values)[-1]
    raise UserError(f"{key}: no such key.")


def _groups(values: Values) -> dict[str, str]:
    return {key: text for key, text in values.items() if is_group(key)}


def _has(composed: Any, key: str) -> bool:
    """Whether a key is there, null or not."""
    node: Any = OmegaConf.to_container(composed, resolve=False)
    for part in key.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False
    return True


def validate_space(entries: Sequence[HyperParameter], command: TuneCommand) -> list[HyperParameter]:
    """Check a space against the configuration, and complete it.

    Args:
        entries: as ``parse_space`` gives them.
        command: what the trials share.

    Returns:
        The same, with conditions that follow from which options have a key, and ranges of keys that
        take fractions as such.

    Raises:
        UserError: a key is unknown, a value is refused, some values cannot be together, or there
            is nothing to choose between.
    """
    checker = ConfigChecker(command)
    by_key = {entry.key: entry for entry in entries}
    try:
        # A group before what it decides about: its condition may complete another's.
        for entry in sorted(entries, key=lambda entry: (not entry.is_group, entry.key.count("/"))):
            by_key[entry.key] = _conditioned(entry, by_key, checker)
        complete = [_typed(entry, by_key, checker) for entry in by_key.values()]
        complete = sort_parents_first(complete)
        for corner in _to_check(complete):
            checker.check(corner)
    except UserError as error:
        raise UserError(f"tuner.space: {error}") from error
    if all(entry.count() == 1 for entry in complete):
        values = " ".join(f"{entry.key}={entry.corners()[0]}" for entry in complete)
        raise UserError(
            f"tuner.space: a single point, {values}; there is nothing to search. Train it, or "
            "declare another choice."
        )
    return complete


def _conditioned(
    entry: HyperParameter, by_key: Mapping[str, HyperParameter], checker: ConfigChecker
) -> HyperParameter:
    """The key with the condition that its group's options make, where it names none of them."""
    group = _searched_group(entry.key, by_key)
    if group is None or group in entry.when:
        return entry
    above = next(_ways(by_key[group], by_key))
    having = tuple(
        choice
        for choice in by_key[group].choices
        if checker.has({**above, group: choice}, entry.key)
    )
    if not having or having == by_key[group].choices:
        return entry  # none: the check says so
    return replace(entry, when={**entry.when, group: having})


def _searched_group(key: str, by_key: Mapping[str, HyperParameter]) -> str | None:
    """The nearest searched group that a key lies in."""
    parts = key.replace("/", ".").split(".")
    for n in range(len(parts) - 1, 0, -1):
        group = "/".join(parts[:n])
        if group in by_key:
            return group
    return None


def _typed(
    entry: HyperParameter, by_key: Mapping[str, HyperParameter], checker: ConfigChecker
) -> HyperParameter:
    """A range of a key that takes fractions is one of fractions, also where its ends are whole."""
    if entry.choices:
        return entry
    groups = _groups(next(_ways(entry, by_key)))
    if not checker.has(groups, entry.key):
        return entry
    now = checker.value(groups, entry.key)
    if isinstance(now, float) and entry.kind == "int":
        return replace(entry, kind="float")
    if isinstance(now, int) and entry.kind == "float":
        raise UserError(
            f"{entry.key}: expected whole numbers for min, max and step; received "
            f"{entry.low:g} to {entry.high:g}."
        )
    return entry


def _to_check(entries: Sequence[HyperParameter]) -> Iterator[dict[str, str]]:
    """Every end and choice under every choice of its condition; then combinations of them."""
    by_key = {entry.key: entry for entry in entries}
    for entry in entries:
        for parents in _ways(entry, by_key):
            for corner in entry.corners():
                yield {**parents, entry.key: corner}
    combined = itertools.product(*(entry.corners() for entry in entries))
    for corners in itertools.islice(combined, COMBINATIONS):
        values: dict[str, str] = {}
        for entry, corner in zip(entries, corners, strict=True):
            if entry.active(values):
                values[entry.key] = corner
        yield values


def _ways(entry: HyperParameter, by_key: Mapping[str, HyperParameter]) -> Iterator[dict[str, str]]:
    """The choices of other keys under which one is searched."""
    for choices in itertools.product(*entry.when.values()):
        here = dict(zip(entry.when, choices, strict=True))
        above: dict[str, str] = {}
        for parent in here:
            above |= next(_ways(by_key[parent], by_key))
        yield {**above, **here}
