"""Validate a declared space against the configuration: all keys, ends of ranges and choices.

A trial is composed as a user's command is, so that the same checks refuse invalid values; here they
run before the first trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from melanoma_lab.config.compose import compose_config, compose_unchecked
from melanoma_lab.config.overrides import parse_override_key, parse_override_value
from melanoma_lab.config.schema import Config
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.search_space import HyperParameter, Values, is_group, sort_parents_first

#: The maximum number of combinations of values that are checked, besides each value alone.
COMBINATIONS = 32


@dataclass(frozen=True)
class TuneCommand:
    """The typed overrides of a ``tune`` command.

    Attributes:
        overrides: the overrides that all trials share: all but those of ``task`` and ``tuner``.
        tuner_overrides: the overrides of ``tuner``, which do not affect a trial.
    """

    overrides: tuple[str, ...]
    config_dir: str | Path | None = None
    tuner_overrides: tuple[str, ...] = ()
    # Composing takes 0.3 s, and a trial's configuration is needed several times.
    _configured: dict[tuple[str, ...], Config] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_overrides(
        cls, overrides: Sequence[str], config_dir: str | Path | None = None
    ) -> TuneCommand:
        """Sort the overrides of a ``tune`` command into those of trials and those of the tuner."""
        keys = {override: parse_override_key(override) for override in overrides}
        return cls(
            tuple(o for o in overrides if not _is_tuner_key(keys[o])),
            config_dir,
            tuple(o for o in overrides if _is_tuner_key(keys[o]) and keys[o] != "task"),
        )

    def with_values(self, values: Values) -> list[str]:
        """Return the overrides of a trial; proposed values replace typed ones."""
        typed = [o for o in self.overrides if parse_override_key(o) not in values]
        return [*typed, *(f"{key}={text}" for key, text in values.items())]

    def configure(self, values: Values) -> Config:
        """Compose and validate a trial's configuration, as that of any command; once per values.

        Raises:
            UserError: a value is invalid, or some do not fit together.
        """
        words = tuple(self.with_values(values))
        if words not in self._configured:
            self._configured[words] = compose_config(words, self.config_dir)[0]
        return self._configured[words]


def _is_tuner_key(key: str) -> bool:
    return key in {"task", "tuner"} or key.startswith("tuner.")


class ConfigChecker:
    """Validates trial values against the configuration; composes it once per choice of groups."""

    def __init__(self, command: TuneCommand) -> None:
        self._command = command
        self._composed: dict[tuple[tuple[str, str], ...], DictConfig] = {}

    def compose(self, groups: Values) -> DictConfig:
        """Compose the configuration for a choice of groups, without validating it.

        Raises:
            UserError: Hydra cannot compose it.
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
        """Refuse invalid values.

        Raises:
            UserError: a key is unknown, or a value is invalid. The message names the key, and the
                most similar one if it is unknown.
        """
        composed = OmegaConf.create(
            OmegaConf.to_container(self.compose(_select_groups(values)), resolve=False)
        )
        for key, text in values.items():
            if not is_group(key):
                if not _has_key(composed, key):
                    _refuse_unknown_key(self._command, {**_select_groups(values), key: text})
                OmegaConf.update(composed, key, parse_override_value(text), merge=True)
        validate_config(cast("DictConfig", composed))

    def has(self, groups: Values, key: str) -> bool:
        """Return whether the configuration has a key or a group, given a choice of groups."""
        return _has_key(self.compose(groups), key.replace("/", "."))

    def value(self, groups: Values, key: str) -> Any:
        """Return a key's configured value, given a choice of groups."""
        return OmegaConf.select(self.compose(groups), key)


def _refuse_unknown_key(command: TuneCommand, values: Values) -> None:
    """Raise the UserError with which the configuration refuses an unknown key."""
    compose_config(command.with_values(values), command.config_dir)
    key = list(values)[-1]
    raise UserError(f"{key}: no such key.")


def _select_groups(values: Values) -> dict[str, str]:
    return {key: text for key, text in values.items() if is_group(key)}


def _has_key(composed: Any, key: str) -> bool:
    """Return whether a key exists; its value may be null."""
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
    """Validate a space against the configuration, and complete it.

    Returns:
        The same keys, with a condition if only some options of a searched group have the key, and
        with kind ``float`` if the key takes floats.

    Raises:
        UserError: a key is unknown, a value is invalid, some values do not fit together, or the
            space is a single point.
    """
    checker = ConfigChecker(command)
    by_key = {entry.key: entry for entry in entries}
    try:
        # A group before the keys in it: their conditions may follow from the group's own.
        for entry in sorted(entries, key=lambda entry: (not entry.is_group, entry.key.count("/"))):
            by_key[entry.key] = _add_group_condition(entry, by_key, checker)
        complete = [_match_kind(entry, by_key, checker) for entry in by_key.values()]
        complete = sort_parents_first(complete)
        for corner in _list_values_to_check(complete):
            checker.check(corner)
    except UserError as error:
        raise UserError(f"tuner.space: {error}") from error
    if all(entry.count_values() == 1 for entry in complete):
        values = " ".join(f"{entry.key}={entry.corners()[0]}" for entry in complete)
        raise UserError(
            f"tuner.space: only one combination, {values}; there is nothing to search. Train it, "
            "or declare another choice."
        )
    return complete


def _add_group_condition(
    entry: HyperParameter, by_key: Mapping[str, HyperParameter], checker: ConfigChecker
) -> HyperParameter:
    """Add a condition on the searched group of a key if only some of its options have the key.

    A condition on the group that the user declared stays as it is.
    """
    group = _find_searched_group(entry.key, by_key)
    if group is None or group in entry.when:
        return entry
    above = next(_iterate_conditions(by_key[group], by_key))
    options = tuple(
        option
        for option in by_key[group].choices
        if checker.has({**above, group: option}, entry.key)
    )
    if not options or options == by_key[group].choices:
        return entry  # if no option has the key, the check refuses it later
    return replace(entry, when={**entry.when, group: options})


def _find_searched_group(key: str, by_key: Mapping[str, HyperParameter]) -> str | None:
    """Return the innermost searched group that contains a key, or None."""
    parts = key.replace("/", ".").split(".")
    for n in range(len(parts) - 1, 0, -1):
        group = "/".join(parts[:n])
        if group in by_key:
            return group
    return None


def _match_kind(
    entry: HyperParameter, by_key: Mapping[str, HyperParameter], checker: ConfigChecker
) -> HyperParameter:
    """Make a range one of floats if its key takes floats, even if its ends are whole numbers."""
    if not entry.is_range:
        return entry
    groups = _select_groups(next(_iterate_conditions(entry, by_key)))
    if not checker.has(groups, entry.key):
        return entry
    configured = checker.value(groups, entry.key)
    if isinstance(configured, float) and entry.kind == "int":
        return replace(entry, kind="float")
    if isinstance(configured, int) and entry.kind == "float":
        raise UserError(
            f"{entry.key}: expected whole numbers for min, max and step; received "
            f"{entry.low:g} to {entry.high:g}."
        )
    return entry


def _list_values_to_check(entries: Sequence[HyperParameter]) -> Iterator[dict[str, str]]:
    """Yield each end and choice with each choice of its condition, then combinations of them."""
    by_key = {entry.key: entry for entry in entries}
    for entry in entries:
        for parents in _iterate_conditions(entry, by_key):
            for corner in entry.corners():
                yield {**parents, entry.key: corner}
    combined = itertools.product(*(entry.corners() for entry in entries))
    for corners in itertools.islice(combined, COMBINATIONS):
        values: dict[str, str] = {}
        for entry, corner in zip(entries, corners, strict=True):
            if entry.is_active(values):
                values[entry.key] = corner
        yield values


def _iterate_conditions(
    entry: HyperParameter, by_key: Mapping[str, HyperParameter]
) -> Iterator[dict[str, str]]:
    """Yield the choices of other keys under which a key is searched."""
    for choices in itertools.product(*entry.when.values()):
        here = dict(zip(entry.when, choices, strict=True))
        above: dict[str, str] = {}
        for parent in here:
            above |= next(_iterate_conditions(by_key[parent], by_key))
        yield {**above, **here}
