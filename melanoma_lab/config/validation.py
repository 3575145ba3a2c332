"""From what Hydra composed to a typed, checked ``Config``, or a message that helps.

Hydra lets ``+group.typo=1`` through; merging the composed values back into the schema does not.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, cast

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from melanoma_lab.config.schema import Audit, Config, Tracking
from melanoma_lab.config.schema.training import Training
from melanoma_lab.errors import UserError, clipped, nearest
from melanoma_lab.registry import OPTIONS

KEYS = tuple(entry.name for entry in dataclasses.fields(Config))


def validate(composed: DictConfig) -> Config:
    """Check every key and value of a composed configuration.

    Args:
        composed: what Hydra composed from ``conf/``, a preset and overrides.

    Returns:
        The typed configuration; each group holds the dataclass of its chosen option.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type or is out of range.
    """
    try:
        return cast("Config", OmegaConf.to_object(OmegaConf.merge(_schema_of(composed), composed)))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise UserError(f"{key} is not set; add {key}=... to the command.") from error
    except OmegaConfBaseException as error:
        message = explain(error)
        key = str(error.full_key)
        raise UserError(message if message.startswith(key) else f"{key}: {message}") from error


def _schema_of(composed: DictConfig) -> DictConfig:
    """The schema of the options that were chosen; unknown keys are refused."""
    schema = OmegaConf.structured(Config)
    for key in composed:
        name = str(key)
        if name not in KEYS:
            raise UserError(f"{name}: no such key. {_nearest_key(name)}")
        if any(group == name for group, _ in OPTIONS):
            schema[name] = OmegaConf.structured(_option_class(name, composed[name]))
        if isinstance(composed[name], DictConfig):
            known = list(schema[name])  # `in` would be False for a mandatory value
            for unknown in (entry for entry in composed[name] if entry not in known):
                full = f"{name}.{unknown}"
                raise UserError(f"{full}: no such key. {_nearest_key(full)}")
            _refuse_unknown_within(name, OmegaConf.get_type(schema[name]), composed[name])
    return cast("DictConfig", schema)


def _refuse_unknown_within(name: str, node: Any, values: DictConfig) -> None:
    """Unknown keys of a dataclass within a group's, such as ``dataset.columns``."""
    for entry in dataclasses.fields(node):
        inner = values.get(entry.name) if dataclasses.is_dataclass(entry.default_factory) else None
        if isinstance(inner, DictConfig):
            known = list(OmegaConf.structured(entry.default_factory))
            for unknown in (key for key in inner if key not in known):
                raise UserError(
                    f"{name}.{entry.name}.{unknown}: no such key. {nearest(str(unknown), known)}"
                )


def _option_class(group: str, values: Any) -> type:
    """The dataclass of a group's chosen option."""
    name = values.get("name") if isinstance(values, DictConfig) else None
    options = [option for g, option in OPTIONS if g == group]
    if name not in options:
        raise UserError(
            f"{group}.name: no option {clipped(repr(name))} in {group}. "
            f"{nearest(str(name), options)}"
        )
    return OPTIONS[group, str(name)]


def _nearest_key(full: str) -> str:
    """Point from an unknown dotted key to a valid one, or to the option that has it."""
    section, _, key = full.partition(".")
    plain = {"audit": Audit, "training": Training, "tracking": Tracking}
    owners = {option: node for (group, option), node in OPTIONS.items() if group == section}
    if section in plain:
        owners = {"": plain[section]}
    if not key or not owners:
        return nearest(section, [*KEYS, "experiment"])
    names = {
        option: {entry.name for entry in dataclasses.fields(n)} for option, n in owners.items()
    }
    having = [f"{section}={option}" for option in owners if key in names[option]]
    if having:
        return f"It is a key of {' and '.join(having)}."
    return nearest(full, {f"{section}.{name}" for keys in names.values() for name in keys})


def explain(error: Exception) -> str:
    """Say in the user's terms why Hydra could not compose the command.

    Args:
        error: what Hydra or OmegaConf raised.

    Returns:
        What is wrong, and the nearest valid name where there is one.
    """
    cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    text = f"{error}{cause}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options or [] if not option.startswith("schema")]
        return f"{group}={name}: no such option. {nearest(name, options)}"
    unknown = re.search(r"Could not (?:override|append) '\+*([^'@]+)'", text)
    if unknown and ("not in" in text or "No match in the defaults list" in text):
        key = unknown[1]
        if key == "experiment":
            return "A preset is chosen with a plus sign: +experiment=NAME."
        return f"{key}: no such key. {_nearest_key(key)}"
    lines = [line.strip() for line in text.splitlines()]
    noise = ("full_key", "object_type", "reference_type")
    kept = [line for line in lines if line and not line.startswith(noise)]
    said = " ".join(kept).removeprefix("UserError raised while resolving interpolation: ")
    return clipped(said, 600)
