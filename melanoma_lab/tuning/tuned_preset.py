"""The best trial as a preset that can be run, and the command that compares it with its arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from melanoma_lab.config.arm import CUSTOM_PRESET, Arm, parse_arm
from melanoma_lab.config.compose import compose_config
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.overrides import parse_override_key
from melanoma_lab.config.schema import Config
from melanoma_lab.config.search_path import STUDY_PRESETS
from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.registry import OPTIONS
from melanoma_lab.tuning.search_space import SEARCHABLE_DATASET_KEYS, Values
from melanoma_lab.tuning.space_validation import TuneCommand

#: What a preset leaves to the command: whatever the arm, a study's arms share it.
OMITTED_GROUPS = ("dataset", "split", "tuner")
#: What it also leaves: how fast, not what, is trained.
OMITTED_TRAINING_KEYS = ("threads", "devices", "resume", "stop_after")
#: Over which seeds the next command trains.
SEEDS = "0,1,2,3,4"


def name_preset(study: str) -> str:
    """What a study's tuned preset is called."""
    return f"{study}_tuned"


def write_preset(command: TuneCommand, values: Values, *, study: str, notes: Sequence[str]) -> Path:
    """Write the best trial of a search as a preset.

    Args:
        command: what the trials shared.
        values: of the best trial.
        study: whose preset it is; there is one.
        notes: what it gave, a line each.

    Returns:
        The file; ``+experiment=<study>_tuned`` finds it from the folder that the search was typed
        in.

    Raises:
        RunError: it cannot be written.
    """
    config, _ = command.configure(values)
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
    """A configuration as a preset: what differs from the lab's defaults.

    Of the dataset only how its images are seen; of the split nothing.

    Args:
        config: the checked configuration.
        reference: the arm that it is compared with.
        comment: lines to begin with.
    """
    plain, default = config_to_dict(config), config_to_dict(compose_config([])[0])
    options, values = [], {}
    chosen = []
    for group in sorted({group for group, _ in OPTIONS} - {*OMITTED_GROUPS}):
        for path, option in _options(group, plain[group]):
            chosen.append(f"{path}={option}")
            if option != dict(_options(group, default[group])).get(path):
                package = f"@{path.replace('/', '.')}" if "/" in path else ""
                options.append({f"override /{path}{package}": option})
    of_options = config_to_dict(compose_config(chosen)[0])
    for section in [*sorted({group for group, _ in OPTIONS} - {*OMITTED_GROUPS}), "training"]:
        if changed := _changed(plain[section], of_options[section]):
            values[section] = changed
    for key in OMITTED_TRAINING_KEYS:
        values.get("training", {}).pop(key, None)
    searched = [key.removeprefix("dataset.") for key in SEARCHABLE_DATASET_KEYS]
    own = {key: plain["dataset"][key] for key in searched}
    values["dataset"] = _changed(own, default["dataset"])
    content: dict[str, Any] = {"defaults": options} if options else {}
    content |= {"reference": reference}
    content |= {section: changed for section, changed in values.items() if changed}
    lines = [f"# {line}".rstrip() for line in comment]
    return "\n".join(["# @package _global_", *lines, OmegaConf.to_yaml(OmegaConf.create(content))])


def _options(group: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The option of a group, and of a group within it: (path, name)."""
    found = [(group, str(values["name"]))]
    for key, value in values.items():
        if isinstance(value, Mapping) and "name" in value:
            found += _options(f"{group}/{key}", value)
    return found


def _changed(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the default."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(default.get(key), Mapping):
            if inner := _changed(value, default[key]):
                found[key] = inner
        elif value != default.get(key):
            found[key] = value
    return found


def find_tuned_reference(command: TuneCommand, values: Values) -> str:
    """The arm that a tuned preset is compared with: its preset, or all of its name.

    All of it where the search replaced something that was typed: only the arm has that.
    """
    arm = parse_arm(command.overrides)
    return arm.name if _replaced(command, values) else arm.preset


def build_next_commands(command: TuneCommand, values: Values, study: str) -> list[str]:
    """What to type to train the best trial and its arm over seeds, and compare them.

    Args:
        command: what the trials shared.
        values: of the best trial.
        study: whose preset it is.
    """
    arm: Arm = parse_arm(command.overrides)
    typed = [o for o in command.overrides if parse_override_key(o) not in {"experiment", "seed"}]
    shared = [o for o in typed if parse_override_key(o) not in values]
    own = [] if command.config_dir is None else ["--config-dir", str(command.config_dir)]
    if not _replaced(command, values) and arm.preset != CUSTOM_PRESET:
        both = f"+experiment={arm.preset},{name_preset(study)}"
        return [format_portable_command("-m", *own, both, f"seed={SEEDS}", *shared)]
    preset = [] if arm.preset == CUSTOM_PRESET else [f"+experiment={arm.preset}"]
    return [
        format_portable_command("-m", *own, *preset, f"seed={SEEDS}", *typed),
        format_portable_command(
            "-m", *own, f"+experiment={name_preset(study)}", f"seed={SEEDS}", *shared
        ),
    ]


def _replaced(command: TuneCommand, values: Values) -> bool:
    return any(parse_override_key(override) in values for override in command.overrides)
