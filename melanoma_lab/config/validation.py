"""Turn Hydra's composed configuration into a typed, checked ``Config``, or explain its errors.

Hydra accepts ``+group.typo=1``; merging the composed values into the schema refuses it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, cast, get_type_hints

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from melanoma_lab.config.compatibility import check_compatibility
from melanoma_lab.config.overrides import format_override
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.shell_commands import format_lab_command, format_pip_install
from melanoma_lab.core.untrusted_files import check_interpolation_growth
from melanoma_lab.registry import OPTIONS

#: Launcher of one of Hydra's plugins -> the package that contains it.
LAUNCHER_PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
    "ray_aws": "hydra-ray-launcher",
}
TASK_NAMES = tuple(task.value for task in Task)
CONFIG_KEYS = tuple(entry.name for entry in dataclasses.fields(Config))


def validate_config(composed: DictConfig) -> Config:
    """Check every key and value of a composed configuration.

    Returns:
        The typed configuration; each group holds the dataclass of its chosen option.

    Raises:
        UserError: a key is unknown or missing, a value has the wrong type or is out of range, or
            two choices exclude each other.
    """
    check_interpolations(composed)
    if missing := [str(key) for key in composed if OmegaConf.is_missing(composed, str(key))]:
        raise UserError("\n".join(map(_format_unset, missing)))
    try:
        merged = OmegaConf.merge(_build_schema(composed), composed)
        config = cast("Config", OmegaConf.to_object(merged))
    except MissingMandatoryValue as error:
        raise UserError(_format_unset(str(error.full_key))) from error
    except OmegaConfBaseException as error:
        message = explain_hydra_error(error)
        key = str(error.full_key)
        raise UserError(message if message.startswith(key) else f"{key}: {message}") from error
    check_compatibility(config)
    return config


def _format_unset(key: str) -> str:
    return f"{key} is not set; add {key}=... to the command."


def check_interpolations(composed: DictConfig) -> None:
    """Refuse references such as ``${seed}`` that could expand to gigabytes of text.

    Raises:
        UserError: the expanded references could be that long.
    """
    try:
        check_interpolation_growth(str(OmegaConf.to_container(composed, resolve=False)))
    except ValueError as error:
        raise UserError(f"The configuration has {error}; write the values out.") from error


def _build_schema(composed: DictConfig) -> DictConfig:
    """Build the schema of the chosen options, and refuse keys that it lacks."""
    schema = OmegaConf.structured(Config)
    for key in composed:
        name = str(key)
        if name not in CONFIG_KEYS:
            raise UserError(f"{name}: no such key. {_nearest_key(name)}")
        if any(group == name for group, _ in OPTIONS):
            schema[name] = _option_schema(name, composed[name])
        if isinstance(composed[name], DictConfig):
            _refuse_unknown(name, composed[name], schema[name])
    return cast("DictConfig", schema)


def _option_schema(group: str, values: Any) -> DictConfig:
    """Build the schema of a group's chosen option, including options nested in it."""
    schema: DictConfig = OmegaConf.structured(_option_class(group, values))
    for key in list(schema):
        if _is_option(values, key):
            schema[key] = _option_schema(group, values[key])
    return schema


def _is_option(values: DictConfig, key: Any) -> bool:
    """Return whether a key holds an option, as ``augmentation.before`` does."""
    return (
        key in values
        and not OmegaConf.is_missing(values, key)
        and isinstance(values[key], DictConfig)
        and "name" in values[key]
    )


def _refuse_unknown(path: str, values: DictConfig, schema: DictConfig) -> None:
    """Refuse keys that the schema lacks; the message names the nearest key that it has."""
    known = list(schema)  # `in` would be False for a mandatory value
    within = "." in path and "name" not in values  # a section of an option: dataset.columns
    for key in map(str, values):
        full = f"{path}.{key}"
        if key not in known:
            hint = suggest_choice(key, known) if within else _nearest_key(full)
            raise UserError(f"{full}: no such key. {hint}")
        if _is_section(schema, key) and isinstance(values[key], DictConfig):
            _refuse_unknown(full, values[key], schema[key])


def _is_section(schema: DictConfig, key: str) -> bool:
    """Return whether a key holds a section, whose keys are all known."""
    inner = None if OmegaConf.is_missing(schema, key) else schema[key]
    return isinstance(inner, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(inner))


def _option_class(group: str, values: Any) -> type:
    """Return the dataclass of a group's chosen option."""
    name = values.get("name") if isinstance(values, DictConfig) else None
    options = [option for g, option in OPTIONS if g == group]
    if name not in options:
        raise UserError(
            f"{group}.name: no option {truncate(repr(name))} in {group}. "
            f"{suggest_choice(str(name), options)}"
        )
    return OPTIONS[group, str(name)]


def _nearest_key(full: str) -> str:
    """Suggest a valid key for an unknown dotted one, or name the option that has it."""
    section = full.partition(".")[0]
    path, _, key = full.rpartition(".")
    owners = {option: node for (group, option), node in OPTIONS.items() if group == section}
    node = get_type_hints(Config).get(section)
    if not owners and dataclasses.is_dataclass(node):
        owners = {"": cast("type", node)}
    if not path or not owners:
        return suggest_choice(section, [*CONFIG_KEYS, "experiment"])
    names = {
        option: {entry.name for entry in dataclasses.fields(n)} for option, n in owners.items()
    }
    options = [f"{section}={option}" for option in owners if key in names[option]]
    if options:
        return f"It is a key of {' and '.join(options)}."
    return suggest_choice(full, {f"{path}.{name}" for keys in names.values() for name in keys})


def _explain_unreadable_word(word: str) -> str:
    """Explain why Hydra cannot parse a word of the command line."""
    key, equals, value = word.partition("=")
    if not equals:
        first = f" A task comes first: {format_lab_command(word)} ..." if word in TASK_NAMES else ""
        return f"{truncate(word)}: expected KEY=VALUE.{first}"
    is_list = value.startswith("[") and value.endswith("]")
    quoted = truncate(format_override(key, value[1:-1].split(",") if is_list else value))
    return (
        f"{truncate(word)}: the value cannot be parsed. Brackets must match; a value that itself "
        "contains brackets, commas, = or letters other than a to z needs quotes within quotes: "
        f"{quoted}"
    )


def explain_hydra_error(error: Exception) -> str:
    """Explain in the user's terms why Hydra could not compose a command."""
    if isinstance(error, OverrideParseException):
        return _explain_unreadable_word(str(error.override))
    cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    text = f"{error}{cause}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHER_PACKAGES:
            return (
                f"hydra/launcher={name}: not installed: "
                f"{format_pip_install(LAUNCHER_PACKAGES[name])}"
            )
        options = [option for option in error.options or [] if not option.startswith("schema")]
        return f"{group}={name}: no such option. {suggest_choice(name, options)}"
    unknown = re.search(r"Could not (?:override|append) '\+*([^'@]+)'", text)
    if unknown and ("not in" in text or "No match in the defaults list" in text):
        key = unknown[1]
        if key == "experiment":
            return "A preset is chosen with a plus sign: +experiment=NAME."
        return f"{key}: no such key. {_nearest_key(key)}"
    lines = [line.strip() for line in text.splitlines()]
    noise = ("full_key", "object_type", "reference_type")
    useful = [line for line in lines if line and not line.startswith(noise)]
    message = " ".join(useful).removeprefix("UserError raised while resolving interpolation: ")
    return truncate(message, 600)
