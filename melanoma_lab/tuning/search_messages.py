"""Console messages of a search: its plan, its progress and its result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tuner import GridSearch, Hyperband, Tuner
from melanoma_lab.core.console import console
from melanoma_lab.core.formatting import format_duration, higher_is_better
from melanoma_lab.runs.run_headline import show_tracking_uri
from melanoma_lab.tuning.search_space import HyperParameter

if TYPE_CHECKING:  # they load pandas and TensorFlow
    from melanoma_lab.tuning.search import FinishedTrial
    from melanoma_lab.tuning.sweep import TuningResult

#: The number of a grid's combinations at which counting stops.
COUNTED = 100_000


def show_search(
    config: Config, arm: Arm, searched: Sequence[HyperParameter], total: int, *, done: int
) -> None:
    """Print what is about to be searched."""
    tuner = config.tuner
    better = "higher" if higher_is_better(tuner.objective) else "lower"
    console.print(
        f"[bold]Tuning {arm.name}[/]  study {config.study}  dataset {config.dataset.name}\n"
        f"tuner={tuner.name}: up to {total} trials for {tuner.objective} ({better} is better)"
        + (f", {done} of them done" if done else "")
    )
    show_tracking_uri(config.tracking)
    for entry in searched:
        console.print(f"  {_describe_hyperparameter(entry)}", markup=False)


def show_chief(workers: int, folder: Path, address: str | None) -> None:
    """Print which worker processes train the trials."""
    if workers:
        console.print(f"  {workers} workers; their output: {folder}/*.log", markup=False)
    if address is not None:
        console.print(
            f"  workers elsewhere ask at {address}; it is neither encrypted nor protected",
            markup=False,
        )


def _describe_hyperparameter(entry: HyperParameter) -> str:
    """Describe a searched key in one line."""
    if not entry.is_range:
        values = ", ".join(entry.choices)
    else:
        values = f"{entry.format(entry.low)} to {entry.format(entry.high)}"
        values += ", log" * entry.log + (f", step {entry.step:g}" if entry.step else "")
    when = " and ".join(f"{key}={' or '.join(choices)}" for key, choices in entry.when.items())
    return f"{entry.key}: {values}" + (f"  (if {when})" if when else "")


def show_interrupted(done: int) -> None:
    """Print how to resume an interrupted search."""
    console.print(f"Interrupted after {done} trials; the same command resumes.", style="yellow")


def _shorten(text: str) -> str:
    """Shorten a number to three digits; return other texts unchanged."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


class SearchProgress:
    """Prints a line for every trial that has ended, and estimates the time left."""

    def __init__(self, tuner: Tuner, searched: Sequence[HyperParameter], oracle: Any) -> None:
        self.total, self._cost = _plan_costs(tuner, searched)
        self._sign = 1 if higher_is_better(tuner.objective) else -1
        from melanoma_lab.tuning.search import find_best_trial

        best = find_best_trial(oracle)
        self._best = None if best is None else (best.score, best.trial_id)
        self._seconds: list[float] = []
        self._done: list[float] = []

    def show_end(self, trial: FinishedTrial) -> None:
        """Print a line for a trial that has ended."""
        self._seconds.append(trial.seconds)
        self._done.append(self._cost[min(trial.number, len(self._cost)) - 1])
        place = f"trial {trial.number:>{len(str(self.total))}}/{self.total}"
        if trial.score is None:
            console.print(f"{place}  failed: {trial.reason}", style="red", markup=False)
            return
        if self._best is None or self._sign * trial.score > self._sign * self._best[0]:
            self._best = trial.score, trial.proposal.trial
        line = (
            f"{place}  {trial.score:.4f}  best {self._best[0]:.4f} (trial {self._best[1]})  "
            + "  ".join(f"{k}={_shorten(text)}" for k, text in trial.proposal.overrides().items())
        )
        rest = self._cost[trial.number :]
        seconds = estimate_time_left(self._done, self._seconds, rest) / trial.parallel_trials
        if seconds:
            line += f"  | about {format_duration(seconds)} left"
        console.print(line, markup=False)


def estimate_time_left(
    costs: Sequence[float], seconds: Sequence[float], rest: Sequence[float]
) -> float:
    """Estimate the time of the remaining trials by linear regression of time on cost.

    Returns:
        Seconds; 0 if no trial was timed or none remains.
    """
    if not rest or not seconds:
        return 0.0
    (each, by_cost), *_ = np.linalg.lstsq(
        np.column_stack([np.ones(len(costs)), costs]), np.asarray(seconds), rcond=None
    )
    if min(each, by_cost) < 0:  # too few trials to separate the two coefficients
        each, by_cost = sum(seconds) / len(seconds), 0.0
    return float(each * len(rest) + by_cost * sum(rest))


def _plan_costs(tuner: Tuner, searched: Sequence[HyperParameter]) -> tuple[int, list[float]]:
    """Return the maximum number of trials, and their relative costs."""
    if isinstance(tuner, Hyperband):
        epochs = list_hyperband_epochs(tuner) * tuner.iterations
        return len(epochs), epochs
    total = getattr(tuner, "max_trials", None) or COUNTED
    if isinstance(tuner, GridSearch) or all(math.isfinite(e.count_values()) for e in searched):
        from melanoma_lab.tuning.oracles import iterate_grid

        total = sum(1 for _ in itertools.islice(iterate_grid(searched), total))
    return total, [1.0] * total


def list_hyperband_epochs(tuner: Hyperband) -> list[float]:
    """List the epochs of each trial of one Hyperband iteration, in the order of training.

    The brackets are those of Keras Tuner's oracle. A promoted trial trains only the epochs beyond
    those of the trial that it continues.
    """
    brackets, epochs = 0, float(tuner.max_epochs)
    while epochs >= 1:
        epochs, brackets = epochs / tuner.factor, brackets + 1
    last = math.ceil(1 + math.log(tuner.max_epochs, tuner.factor))
    found: list[float] = []
    for bracket in reversed(range(brackets)):
        trained = 0
        for k in range(bracket + 1):
            size = math.ceil(last / (bracket + 1) * tuner.factor ** (bracket - k))
            until = math.ceil(tuner.max_epochs / tuner.factor ** (bracket - k))
            found += [float(until - trained)] * size
            trained = until
    return found


def show_tuning_result(
    tuned: TuningResult, untuned: Mapping[str, object], notes: Sequence[str]
) -> None:
    """Print the best configuration, the files written and the next commands."""
    table = Table(title=None, show_edge=False, pad_edge=False, header_style="bold")
    for column in ("", "best", "untuned"):
        table.add_column(column, justify="left" if not column else "right")
    for key, text in tuned.values.items():
        before = untuned.get(key)
        table.add_row(
            key, _shorten(text), "" if before is None else _shorten(format_override_value(before))
        )
    console.print()
    console.print(table)
    console.print()
    for note in notes:
        console.print(note, markup=False)
    console.print(
        f"\npreset: {tuned.preset}   (+experiment={tuned.preset.stem})\n"
        f"report: {tuned.report}\n"
        "next, retrain it over seeds and compare it with the untuned arm on the test split:",
        markup=False,
    )
    for command in tuned.commands:
        console.print(f"  {command}", style="bold", markup=False)
