"""Write the best trial as a preset, and build the commands that compare it with its arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from melanoma_lab.config.arm import CUSTOM_PRESET, Arm, parse_arm
from melanoma_lab.config.compose import STUDY_PRESETS, compose_config
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.overrides import parse_override_key
from melanoma_lab.config.schema import Config
from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.registry import OPTIONS
from melanoma_lab.tuning.search_space import SEARCHABLE_DATASET_KEYS, Values
from melanoma_lab.tuning.space_validation import TuneCommand

#: Groups that a preset leaves to the command, because all arms of a study share them.
OMITTED_GROUPS = ("dataset", "split", "tuner")
#: Training keys that a preset leaves out, because they do not affect the result.
OMITTED_TRAINING_KEYS = ("threads", "devices", "resume", "stop_after")
#: The seeds of the next commands.
SEEDS = "0,1,2,3,4"


def name_preset(study: str) -> str:
    """Return the name of a study's tuned preset."""
    return f"{study}_tuned"


def write_preset(command: TuneCommand, values: Values, *, study: str, notes: Sequence[str]) -> Path:
    """Write the best trial of a search as a preset.

    Args:
        command: the overrides that all trials share.
        values: the best trial's values.
        study: the name of the study; it has one tuned preset.
        notes: lines about the result, for the preset's comment.

    Returns:
        The path of the file; ``+experiment=<study>_tuned`` finds it from the folder in which the
        search was started.

    Raises:
        RunError: the file cannot be written.
    """
    config = command.configure(values)
    folder = Path("experiments") / study / STUDY_PRESETS / "experiment"
    path = folder / f"{name_preset(study)}.yaml"
    text = format_preset(config, reference=find_tuned_reference(command, values), comment=[
        "Does tuning help?",
        *(f"  {line}" for line in build_next_commands(command, values, study)),
        *notes,
    ])  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}).") from error
    return path


def format_preset(config: Config, *, reference: str, comment: Sequence[str]) -> str:
    """Format a configuration as a preset: the values that differ from the defaults.

    Of the dataset, a preset has only the searchable keys; of the split, nothing.

    Args:
        config: the validated configuration.
        reference: the name of the arm that it is compared with.
        comment: the lines of the comment at the top.
    """
    plain, default = config_to_dict(config), config_to_dict(compose_config([])[0])
    options, values = [], {}
    chosen = []
    for group in sorted({group for group, _ in OPTIONS} - {*OMITTED_GROUPS}):
        for path, option in _list_options(group, plain[group]):
            chosen.append(f"{path}={option}")
            if option != dict(_list_options(group, default[group])).get(path):
                package = f"@{path.replace('/', '.')}" if "/" in path else ""
                options.append({f"override /{path}{package}": option})
    option_defaults = config_to_dict(compose_config(chosen)[0])
    for section in [*sorted({group for group, _ in OPTIONS} - {*OMITTED_GROUPS}), "training"]:
        if changed := _select_changed(plain[section], option_defaults[section]):
            values[section] = changed
    for key in OMITTED_TRAINING_KEYS:
        values.get("training", {}).pop(key, None)
    searched = [key.removeprefix("dataset.") for key in SEARCHABLE_DATASET_KEYS]
    dataset = {key: plain["dataset"][key] for key in searched}
    values["dataset"] = _select_changed(dataset, default["dataset"])
    content: dict[str, Any] = {"defaults": options} if options else {}
    content |= {"reference": reference}
    content |= {section: changed for section, changed in values.items() if changed}
    lines = [f"# {line}".rstrip() for line in comment]
    return "\n".join(["# @package _global_", *lines, OmegaConf.to_yaml(OmegaConf.create(content))])


def _list_options(group: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the options of a group and of the groups within it, as (path, name)."""
    found = [(group, str(values["name"]))]
    for key, value in values.items():
        if isinstance(value, Mapping) and "name" in value:
            found += _list_options(f"{group}/{key}", value)
    return found


def _select_changed(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the default."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(default.get(key), Mapping):
            if inner := _select_changed(value, default[key]):
                found[key] = inner
        elif value != default.get(key):
            found[key] = value
    return found


def find_tuned_reference(command: TuneCommand, values: Values) -> str:
    """Return the name of the arm that a tuned preset is compared with.

    It is the preset's name; but the arm's full name, with its overrides, if the search replaced a
    typed value, because then only the untuned arm has that value.
    """
    arm = parse_arm(command.overrides)
    return arm.name if _replaces_typed_value(command, values) else arm.preset


def build_next_commands(command: TuneCommand, values: Values, study: str) -> list[str]:
    """Build the commands that train the best configuration and its arm over seeds and compare them.

    Args:
        command: the overrides that all trials share.
        values: the best trial's values.
        study: the name of the study.
    """
    arm: Arm = parse_arm(command.overrides)
    typed = [o for o in command.overrides if parse_override_key(o) not in {"experiment", "seed"}]
    shared = [o for o in typed if parse_override_key(o) not in values]
    options = [] if command.config_dir is None else ["--config-dir", str(command.config_dir)]
    if not _replaces_typed_value(command, values) and arm.preset != CUSTOM_PRESET:
        both = f"+experiment={arm.preset},{name_preset(study)}"
        return [format_portable_command("-m", *options, both, f"seed={SEEDS}", *shared)]
    preset = [] if arm.preset == CUSTOM_PRESET else [f"+experiment={arm.preset}"]
    return [
        format_portable_command("-m", *options, *preset, f"seed={SEEDS}", *typed),
        format_portable_command(
            "-m", *options, f"+experiment={name_preset(study)}", f"seed={SEEDS}", *shared
        ),
    ]


def _replaces_typed_value(command: TuneCommand, values: Values) -> bool:
    return any(parse_override_key(override) in values for override in command.overrides)
