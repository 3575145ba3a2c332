"""The result of a search: its space, the results of all trials, and the best of them.

This module does not need TensorFlow, Keras Tuner or MLflow: ``sweep_builder`` reads the trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.tuning.search_space import HyperParameter, label_choice, label_value

STATUSES: Final = ("completed", "failed", "running", "killed")
COLUMNS: Final = (
    *("trial", "number", "status", "score", "scores", "epochs"),
    *("steps", "seconds", "run_id", "reason", "rung"),
)
#: The maximum number of trials that are drawn in blue among parallel coordinates.
N_BLUE: Final = 30


@dataclass(frozen=True, eq=False)
class Sweep:
    """A search space and the results of its trials so far.

    Attributes:
        study: the name of the study, which is the MLflow experiment.
        name: the name of the sweep: the arm that it tunes, or the study.
        command: the command that starts the sweep, and resumes it.
        objective: the metric that was optimised, such as ``val/balanced_accuracy``; always of the
            validation split.
        higher_is_better: whether the greatest score is the best, rather than the least.
        algorithm: Keras Tuner's algorithm, such as ``hyperband``.
        searched: the search space; a key comes after those that its condition names.
        trials: one row for each trial, with the columns

            * ``trial``: str; Keras Tuner's id, unique;
            * ``number``: int; the trial's place in the order in which trials began, unique;
            * ``status``: str; one of ``STATUSES``;
            * ``score``: float; the objective, NaN if there is none;
            * ``scores``: list of float; the objective of each of its runs, in the order of
              ``repetitions``; ``score`` is their mean. Empty if there are none;
            * ``epochs``: int; the epochs trained, including those of a trial that it continues;
            * ``steps``: float; the optimizer steps of this trial itself, over all its runs;
            * ``seconds``: float; the time of fitting and evaluating, over all its runs;
            * ``run_id``: str; MLflow's run id, empty if there is none;
            * ``reason``: str; why it failed or was killed, else empty;
            * ``rung``: int; the rank of Hyperband's budget: 0 for the smallest of the whole sweep,
              in any bracket, so that trials of one rung had the same number of epochs to train; -1
              if all trials of the sweep have the same budget;
            * ``value/<key>``: one column for each searched key; the trial's value as a Python
              object, None or NaN if the key's condition is false.
        budget: the sweep's budget in a few words, such as ``40 trials of up to 15 epochs``.
        data: names and texts that describe the data, such as ``dataset`` and ``protocol``; shown
            unchanged.
        untuned: the untuned arm's values, key -> value, as far as they are known.
        next_command: the command that compares the tuned configuration with the untuned arm over
            several seeds; empty if no trial has a score.
        repetitions: names of the entries of ``scores``, such as ``("seed 0", "seed 1")``; empty if
            unknown.

    Raises:
        ValueError: a column is missing, a row contradicts the space, or a value contradicts this
            description.
    """

    study: str
    name: str
    command: str
    objective: str
    higher_is_better: bool
    algorithm: str
    searched: tuple[HyperParameter, ...]
    trials: pd.DataFrame = field(repr=False)
    seed: int
    budget: str
    data: Mapping[str, str]
    untuned: Mapping[str, object] = field(default_factory=dict)
    next_command: str = ""
    repetitions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_columns()
        for entry in self.searched:
            used, values = self.find_active(entry, self.trials), self.trials[f"value/{entry.key}"]
            for number, value in zip(self.trials["number"][used], values[used], strict=True):
                what = f"{entry.key} of trial {number} in its range or among its choices"
                _expect(entry.contains(value), what, value)

    def _check_columns(self) -> None:
        trials = self.trials
        wanted = [*COLUMNS, *(f"value/{entry.key}" for entry in self.searched)]
        missing = sorted(set(wanted) - set(trials.columns))
        _expect(not missing, f"the columns {wanted}", f"a table without {missing}")
        for column in ("trial", "number"):
            _expect(trials[column].is_unique, f"{column}s that differ", list(trials[column]))
        for column in ("number", "epochs", "rung"):
            whole = trials[column].map(lambda x: isinstance(x, int | np.integer)).all()
            _expect(bool(whole), f"integers as {column}", list(trials[column]))
        for column in ("score", "steps", "seconds"):
            numbers = pd.api.types.is_numeric_dtype(trials[column]) or not len(trials)
            _expect(numbers, f"numbers as {column}", trials[column].dtype)
        _expect(trials.index.is_unique, "rows that have an index of their own", trials.index)
        strange = sorted(set(trials["status"]) - set(STATUSES))
        _expect(not strange, f"a status of {', '.join(STATUSES)}", strange)
        lists = trials["scores"].map(lambda scores: isinstance(scores, list | tuple)).all()
        _expect(bool(lists), "a list of scores of every trial", list(trials["scores"]))

    def find_active(self, entry: HyperParameter, trials: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which trials use a searched key: its condition holds; bool, shape (trials,)."""
        used = np.ones(len(trials), bool)
        by_key = {known.key: known for known in self.searched}
        for key, choices in entry.when.items():
            labels = trials[f"value/{key}"].map(label_value)
            allowed = labels.isin([label_choice(text) for text in choices])
            used &= self.find_active(by_key[key], trials) & allowed.to_numpy(bool)
        return used

    @property
    def rungs(self) -> list[int]:
        """The rungs of Hyperband, the smallest budget first; none if all budgets are the same."""
        return sorted({int(rung) for rung in self.trials["rung"]} - {-1})

    @property
    def scored(self) -> pd.DataFrame:
        """The completed trials that have a finite score, in the order in which they began."""
        scores = self.trials["score"].astype(float)
        done = (self.trials["status"] == "completed") & np.isfinite(scores)
        return self.trials[done].sort_values("number")

    @property
    def unscored(self) -> pd.DataFrame:
        """All other trials, in the order in which they began."""
        return self.trials.drop(self.scored.index).sort_values("number")

    @property
    def best(self) -> pd.Series[Any] | None:
        """The trial with the best score, the earliest of equal ones; None if no trial has a score.

        Hyperband's trials count whatever their rung: Li et al. (2018), "Hyperband", algorithm 1,
        returns the configuration with the best intermediate result.
        """
        scored = self.scored
        if scored.empty:
            return None
        scores = scored["score"].to_numpy(float)
        return scored.iloc[int(scores.argmax() if self.higher_is_better else scores.argmin())]


def track_best(sweep: Sweep) -> pd.DataFrame:
    """Return the best score after each trial, in the order in which trials began.

    Returns:
        A row for each trial, whatever its status, with the columns number, score (float; NaN if it
        has none) and best (float; the best score of this and all earlier trials, NaN before the
        first score).
    """
    trials = sweep.trials.sort_values("number", ignore_index=True)
    scored = trials["number"].isin(sweep.scored["number"])
    scores = trials["score"].astype(float).where(scored)
    best = scores.ffill().cummax() if sweep.higher_is_better else scores.ffill().cummin()
    return pd.DataFrame({"number": trials["number"], "score": scores, "best": best})


def select_best_trials(sweep: Sweep, trials: pd.DataFrame) -> pd.DataFrame:
    """Select the best tenth of some trials: at least three if there are, at most ``N_BLUE``."""
    ranked = trials.sort_values(
        ["score", "number"], ascending=[not sweep.higher_is_better, True], kind="stable"
    )
    return ranked.head(min(N_BLUE, max(3, math.ceil(len(ranked) / 10))))


@dataclass(frozen=True)
class TuningResult:
    """The result of a search.

    Attributes:
        values: the best trial's values of the searched keys, as in Hydra overrides.
        preset: the path of the preset with the best configuration.
        report: the path of the report's page.
        commands: the commands that retrain and compare the best configuration.
        run_id: the MLflow id of the search's own run.
    """

    study: str
    score: float
    values: dict[str, str]
    preset: Path
    report: Path
    commands: tuple[str, ...]
    run_id: str
    sweep: Sweep


def _expect(holds: bool, what: str, received: object) -> None:
    if not holds:
        raise ValueError(f"Expected {what}. Received {received!r}.")
