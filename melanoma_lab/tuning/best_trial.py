"""The best trial of a search: its plots and model, its preset, and the commands that compare it.

Plots and model come from its last checkpoint; nothing is trained again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from melanoma_lab.config.arm import CUSTOM_PRESET, Arm, parse_arm
from melanoma_lab.config.compose import STUDY_PRESETS, compose_config
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.overrides import parse_override_key
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_note
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.files import replace_file
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.models.trivial_classifiers import TrivialClassifier
from melanoma_lab.registry import OPTIONS
from melanoma_lab.reports.model_card import write_model_card
from melanoma_lab.runs import steps
from melanoma_lab.runs.run_report import (
    RunReport,
    add_figures_and_model,
    evaluate_training,
    write_figures,
)
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.tracking.logged_model import save_network
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, MODEL_FOLDER
from melanoma_lab.tracking.parent_runs import SWEEP_TAG, TRIAL_TAG
from melanoma_lab.tracking.run_reader import RunIdentity
from melanoma_lab.tracking.upload import log_artifacts_and_model
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.training_result import TrainingResult, fit_trivial_classifier
from melanoma_lab.tuning.plan import Proposal
from melanoma_lab.tuning.search_space import SEARCHABLE_DATASET_KEYS, Values
from melanoma_lab.tuning.space_validation import TuneCommand
from melanoma_lab.tuning.trial_runner import TrialRunner


def report_best_trial(trials: TrialRunner, proposal: Proposal) -> None:
    """Log plots and the model to those runs of a trial that have none yet; the plots show val."""
    client = trials.tracker.client
    for repetition in trials.repetitions:
        spec = trials.specify_repetition(proposal, repetition)
        tags = {SWEEP_TAG: trials.sweep, TRIAL_TAG: proposal.trial, "fingerprint": spec.fingerprint}
        found = trials.tracker.find_finished(tags)
        if client is None or found is None or client.list_artifacts(found.run_id, "plots"):
            continue
        lock = trials.get_run_lock(proposal, repetition)
        checkpoint = CheckpointManager(lock.folder, show_note).load_newest()
        if checkpoint is None and not spec.is_trivial:
            show_note(
                f"Trial {proposal.trial} has no plots and no model: its checkpoint is not in the "
                "cache."
            )
            continue
        images = steps.balance_images(spec)
        trained = _restore(spec, images, checkpoint)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / ARTIFACTS_FOLDER).mkdir()
            run = evaluate_training(spec, trained, costs={})
            tracked = client.get_run(found.run_id)
            run = replace(run, metrics=tracked.data.metrics)
            report = add_figures_and_model(RunReport(run), spec, images, trained)
            artifacts = folder / ARTIFACTS_FOLDER
            if report.figures is not None:
                write_figures(run, report.figures, artifacts, f"trial {proposal.trial}")
            if model := report.model:
                save_network(model.network, model.info, folder / MODEL_FOLDER, model.files)
                identity = RunIdentity(found.run_id, tracked.info.start_time, tracked.data.tags)
                write_model_card(run, identity, artifacts)
            log_artifacts_and_model(client, found.run_id, folder)


def _restore(spec: RunSpec, images: BalancedSet, checkpoint: Checkpoint | None) -> TrainingResult:
    """Return the result of a finished trial from its last checkpoint.

    A trivial classifier has no checkpoint; it is fitted again.
    """
    setup = steps.build_setup(spec, images)
    if isinstance(setup, TrivialClassifier):
        return fit_trivial_classifier(setup, spec.data, images, splits=spec.options.splits)
    from melanoma_lab.training.trainer import train_network

    def ignore(*_: Any) -> None:
        """Do nothing: the trial's run already has the metrics of every epoch."""

    return train_network(
        spec.config,
        spec.data,
        images,
        setup,
        on_step=ignore,
        on_epoch=ignore,
        start=checkpoint,
        splits=spec.options.splits,
    )


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
    """Write the best trial of a search as a preset, and return the path of its file.

    Raises:
        RunError: the file cannot be written.
    """
    config, arm = command.configure(values), parse_arm(command.overrides)
    # If the search replaced a typed value, only the untuned arm, named with its overrides, has it.
    reference = arm.name if _replaces_typed_value(command, values) else arm.preset
    folder = Path("experiments") / study / STUDY_PRESETS / "experiment"
    path = folder / f"{name_preset(study)}.yaml"
    text = format_preset(config, reference=reference, comment=[
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


def build_next_commands(command: TuneCommand, values: Values, study: str) -> list[str]:
    """Build the commands that compare the best configuration with its arm over seeds."""
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
