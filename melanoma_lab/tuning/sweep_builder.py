"""Build a sweep, the data of a search's report, from the search's oracle and its MLflow runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from melanoma_lab.config.arm import CUSTOM_PRESET
from melanoma_lab.config.overrides import format_override_value, parse_override_value
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tuner import Hyperband, Tuner
from melanoma_lab.core.formatting import higher_is_better
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.tracking.client import iterate_pages
from melanoma_lab.tracking.parent_runs import REPETITION_TAG, SCORE_TAG, SWEEP_TAG, TRIAL_TAG
from melanoma_lab.tuning.plan import Proposal, Repetition, SearchPlan
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.space_validation import ConfigChecker, TuneCommand
from melanoma_lab.tuning.sweep import COLUMNS, Sweep

if TYPE_CHECKING:  # they load TensorFlow
    from melanoma_lab.tuning.search import TrialLog
    from melanoma_lab.tuning.trial_runner import TrialRunner

#: Keras Tuner's status of a trial -> the report's.
STATUS = {"COMPLETED": "completed", "FAILED": "failed", "INVALID": "failed", "RUNNING": "running"}


def build_sweep(plan: SearchPlan, trial_log: TrialLog, next_commands: Sequence[str]) -> Sweep:
    """Collect the data of a search's report from its oracle and its MLflow runs."""
    config, tuner, trials = plan.config, plan.config.tuner, trial_log.trials
    proposals = {t.trial_id: trial_log.read_proposal(t) for t in trial_log.oracle.trials.values()}
    first = trials.specify_repetition(next(iter(proposals.values())), trials.repetitions[0])
    untuned = ConfigChecker(plan.command).compose({})
    return Sweep(
        study=config.study,
        # Without the overrides: they are in the command, and often in the study's name.
        name=plan.arm.preset if plan.arm.preset != CUSTOM_PRESET else config.study,
        command=_format_command(plan.command, config),
        objective=tuner.objective,
        higher_is_better=higher_is_better(tuner.objective),
        algorithm=tuner.name,
        searched=tuple(plan.searched),
        trials=_build_trials_table(trials, trial_log.oracle, plan.searched, proposals),
        seed=tuner.seed,
        budget=_describe_budget(tuner, first.config.training.epochs),
        data={
            "dataset": first.config.dataset.name,
            "split": first.config.split.name,
            "protocol": first.data.protocol,
            "grouped_by": ", ".join(first.data.grouped_by),
            "split_hash": first.data.split_hash,
        },
        untuned=_find_untuned_values(untuned, plan.searched),
        next_command=" && ".join(next_commands),
        repetitions=tuple(map(str, trials.repetitions)) if len(trials.repetitions) > 1 else (),
    )


def _format_command(command: TuneCommand, config: Config) -> str:
    """Format the command that starts a search, and resumes it."""
    tuner = config.tuner
    words = [*command.overrides, f"tuner={tuner.name}"]
    for entry in dataclasses.fields(tuner):
        value = getattr(tuner, entry.name)
        if entry.name != "name" and value != entry.default:
            words.append(f"tuner.{entry.name}={format_override_value(value)}")
    options = [] if command.config_dir is None else ["--config-dir", str(command.config_dir)]
    return format_portable_command("tune", *options, *words)


def _build_trials_table(
    trials: TrialRunner,
    oracle: Any,
    searched: Sequence[HyperParameter],
    proposals: Mapping[str, Proposal],
) -> pd.DataFrame:
    """Build the table of trials, with the columns of ``Sweep.trials``."""
    client = trials.tracker.client  # None if there is no server to read runs from
    runs = _find_runs(client, trials.tracker.experiment_id, trials.sweep)
    lengths = sorted({p.epochs[1] for p in proposals.values() if p.epochs})
    rows = []
    for number, trial_id in enumerate(oracle.start_order):
        trial, proposal = oracle.trials[trial_id], proposals[trial_id]
        own = runs.get(trial_id, [])
        scored = [run for run in own if "arm" in run.data.tags]
        by_repetition = {
            Repetition(
                int(run.data.tags["seed"]),
                int(run.data.tags["fold"]) if "split.fold" in run.data.params else None,
            ): run
            for run in scored
        }
        ordered = [by_repetition[each] for each in trials.repetitions if each in by_repetition]
        metrics = [run.data.metrics for run in ordered]
        row: dict[str, Any] = {
            "trial": trial_id,
            "number": number,
            "status": STATUS.get(trial.status, "running"),
            "score": math.nan if trial.score is None else float(trial.score),
            "scores": [float(run.data.tags.get(SCORE_TAG, "nan")) for run in ordered],
            "epochs": _count_epochs(client, ordered, proposal),
            "steps": _count_steps(metrics, proposal, runs),
            "seconds": float(sum(_measure_seconds(run) for run in ordered)),
            "run_id": _find_trial_run(own),
            "reason": trial.message or "",
            "rung": lengths.index(proposal.epochs[1]) if proposal.epochs else -1,
        }
        values = dict(proposal.values)
        for entry in searched:
            text = values.get(entry.key)
            row[f"value/{entry.key}"] = None if text is None else parse_override_value(text)
        rows.append(row)
    columns = [*COLUMNS, *(f"value/{entry.key}" for entry in searched)]
    table = pd.DataFrame(rows, columns=columns)
    for entry in searched:
        if entry.is_range:
            table[f"value/{entry.key}"] = table[f"value/{entry.key}"].astype(float)
    return table


def _find_runs(client: Any, experiment_id: str, sweep: str) -> dict[str, list[Any]]:
    """Return the runs of each trial, the newest last."""
    found: dict[str, list[Any]] = {}
    if client is None:
        return found
    for run in iterate_pages(
        client.search_runs,
        [experiment_id],
        f"tags.`{SWEEP_TAG}` = '{sweep}'",
        max_results=1000,
        order_by=["attributes.start_time ASC"],
    ):
        if TRIAL_TAG in run.data.tags:
            found.setdefault(run.data.tags[TRIAL_TAG], []).append(run)
    return found


def _find_trial_run(runs: Sequence[Any]) -> str:
    """Return the id of a trial's run, the parent run if there are several; empty if none."""
    candidates = [run for run in runs if REPETITION_TAG not in run.data.tags]
    return str(candidates[-1].info.run_id) if candidates else ""


def _measure_seconds(run: Any) -> float:
    ended = run.info.end_time or run.info.start_time
    return float((ended - run.info.start_time) / 1000)


def _count_epochs(client: Any, runs: Sequence[Any], proposal: Proposal) -> int:
    """Count the epochs that a trial has trained, including those of a trial that it continues."""
    if not runs:
        return proposal.epochs[1] if proposal.epochs else 0
    points = client.get_metric_history(runs[-1].info.run_id, "epoch/train_loss")
    return max((point.step for point in points), default=0)


def _count_steps(
    metrics: Sequence[Mapping[str, float]], proposal: Proposal, runs: Mapping[str, Sequence[Any]]
) -> float:
    """Sum the optimizer steps of a trial itself, over all its runs."""
    taken = sum(m.get("optimizer_steps", 0.0) for m in metrics)
    if proposal.continues is not None:
        before = [run for run in runs.get(proposal.continues.trial, []) if "arm" in run.data.tags]
        taken -= sum(run.data.metrics.get("optimizer_steps", 0.0) for run in before)
    return max(taken, 0.0)


def _describe_budget(tuner: Tuner, epochs: int) -> str:
    """Describe the budget of a search in a few words."""
    if isinstance(tuner, Hyperband):
        times = f", {tuner.iterations} times" if tuner.iterations > 1 else ""
        return f"up to {tuner.max_epochs} epochs a trial, one in {tuner.factor} continues{times}"
    most = getattr(tuner, "max_trials", None)
    return f"{most or 'all'} trials of up to {epochs} epochs"


def _find_untuned_values(composed: Any, searched: Sequence[HyperParameter]) -> dict[str, Any]:
    """Return an arm's values of those searched keys that it has."""
    found = {}
    for entry in searched:
        key = entry.key.replace("/", ".")
        value = OmegaConf.select(composed, f"{key}.name" if entry.is_group else key)
        if value is not None:
            found[entry.key] = (
                OmegaConf.to_object(value) if isinstance(value, ListConfig | DictConfig) else value
            )
    return found
