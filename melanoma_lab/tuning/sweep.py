"""The data of a sweep's report: the search space and the results of all trials.

This module does not need TensorFlow, Keras Tuner or MLflow: ``trials_table`` reads the trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.tuning.search_space import label_value

Kind = Literal["float", "int", "choice", "bool"]
STATUSES: Final = ("completed", "failed", "running", "killed")
COLUMNS: Final = (
    *("trial", "number", "status", "score", "scores", "epochs"),
    *("steps", "seconds", "run_id", "reason", "rung"),
)


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter of a search space.

    Attributes:
        key: the dotted configuration key, such as ``optimizer.learning_rate``.
        kind: the type of its values.
        low: the least value (inclusive) of kind ``float`` or ``int``; None otherwise.
        high: the greatest value (inclusive) of kind ``float`` or ``int``; None otherwise.
        log: whether values are spread evenly over the logarithm.
        choices: the values of kind ``choice``, in the order in which they are shown: strings,
            numbers, booleans, None and lists of them; empty otherwise.
        when: its condition: the key of an earlier dimension -> the value that it must have, or a
            tuple of alternative values (a list is a single value). Empty if it is always used.

    Raises:
        ValueError: the attributes contradict this description.
    """

    key: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[object, ...] = ()
    when: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(bool(self.key), "a dotted key", self.key)
        _expect(self.kind in get_args(Kind), f"a kind of {', '.join(get_args(Kind))}", self.kind)
        ends = f"{self.key} from {self.low} to {self.high}, log={self.log}"
        if self.is_number:
            low, high = self.low, self.high
            known = low is not None and high is not None and low <= high
            _expect(known, f"low <= high of a dimension that is {self.kind}", ends)
            _expect(not self.log or (low or 0) > 0, "low > 0 where the scale is logarithmic", ends)
        else:
            _expect(self.low is None and self.high is None, "no low or high of a choice", ends)
        choices = f"{self.key} with {self.choices!r}"
        _expect(bool(self.choices) == (self.kind == "choice"), "choices of a choice alone", choices)
        names = [label_value(choice) for choice in self.choices]
        _expect(len(set(names)) == len(names), "choices that differ", choices)

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers on a scale."""
        return self.kind in {"float", "int"}

    @property
    def names(self) -> tuple[str, ...]:
        """The texts of its values, in order; empty if they are numbers on a scale."""
        values = (False, True) if self.kind == "bool" else self.choices
        return tuple(label_value(value) for value in values)

    def holds(self, value: object) -> bool:
        """Return whether a value lies in the range or among the choices."""
        if not self.is_number:
            return label_value(value) in self.names
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            return False
        # Steps on a logarithmic scale may miss the end by rounding.
        slack = 1e-9 * max(abs(self.low or 0), abs(self.high or 0))
        return (self.low or 0) - slack <= float(value) <= (self.high or 0) + slack


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
        dimensions: the search space; a dimension comes after those that its condition names.
        trials: one row for each trial, with the columns

            * ``trial``: str; Keras Tuner's id, unique;
            * ``number``: int; the trial's place in the order in which trials began, unique;
            * ``status``: str; one of ``STATUSES``;
            * ``score``: float; the objective, NaN if there is none;
            * ``scores``: list of float; the objective of each of its runs, in the order of
              ``repeats``; ``score`` is their mean. Empty if there are none;
            * ``epochs``: int; the epochs trained, including those of a trial that it continues;
            * ``steps``: float; the optimizer steps of this trial itself, over all its runs;
            * ``seconds``: float; the time of fitting and evaluating, over all its runs;
            * ``run_id``: str; MLflow's run id, empty if there is none;
            * ``reason``: str; why it failed or was killed, else empty;
            * ``rung``: int; the rank of Hyperband's budget: 0 for the smallest of the whole sweep,
              in any bracket, so that trials of one rung had the same number of epochs to train; -1
              if all trials of the sweep have the same budget;
            * ``value/<key>``: one column for each dimension; the trial's value, None or NaN if the
              dimension's condition is false.
        seed: the seed of the search.
        budget: the sweep's budget in a few words, such as ``40 trials of up to 15 epochs``.
        data: names and texts that describe the data, such as ``dataset`` and ``protocol``; shown
            unchanged.
        untuned: the untuned arm's values, key -> value, as far as they are known.
        next_command: the command that compares the tuned configuration with the untuned arm over
            several seeds; empty if no trial has a score.
        repeats: names of the entries of ``scores``, such as ``("seed 0", "seed 1")``; empty if
            unknown.

    Raises:
        ValueError: a column is missing, a row contradicts the dimensions, or a value contradicts
            this description.
    """

    study: str
    name: str
    command: str
    objective: str
    higher_is_better: bool
    algorithm: str
    dimensions: tuple[Dimension, ...]
    trials: pd.DataFrame = field(repr=False)
    seed: int
    budget: str
    data: Mapping[str, str]
    untuned: Mapping[str, object] = field(default_factory=dict)
    next_command: str = ""
    repeats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_dimensions()
        self._check_columns()
        for dimension in self.dimensions:
            applies, values = self.applies(dimension), self.trials[f"value/{dimension.key}"]
            for number, value in zip(self.trials["number"][applies], values[applies], strict=True):
                what = f"{dimension.key} of trial {number} in its range or among its choices"
                _expect(dimension.holds(value), what, value)

    def _check_dimensions(self) -> None:
        keys: list[str] = []
        for dimension in self.dimensions:
            _expect(dimension.key not in keys, "a dimension a key", dimension.key)
            for parent in dimension.when:
                what = f"conditions of {dimension.key} on earlier dimensions ({keys})"
                _expect(parent in keys, what, parent)
            keys.append(dimension.key)

    def _check_columns(self) -> None:
        trials = self.trials
        wanted = [*COLUMNS, *(f"value/{dimension.key}" for dimension in self.dimensions)]
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

    def applies(self, dimension: Dimension) -> NDArray[np.bool_]:
        """Return which trials use a dimension (its condition holds); bool, shape (trials,)."""
        applies = np.ones(len(self.trials), bool)
        by_key = {known.key: known for known in self.dimensions}
        for key, wanted in dimension.when.items():
            allowed = [label_value(value) for value in list_alternatives(wanted)]
            names = self.trials[f"value/{key}"].map(label_value)
            applies &= self.applies(by_key[key]) & names.isin(allowed).to_numpy(bool)
        return applies

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


def list_alternatives(wanted: object) -> tuple[object, ...]:
    """Return the alternative values of a condition of ``Dimension.when``."""
    return wanted if isinstance(wanted, tuple) else (wanted,)


def _expect(holds: bool, what: str, received: object) -> None:
    if not holds:
        raise ValueError(f"Expected {what}. Received {received!r}.")
