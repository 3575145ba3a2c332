"""A sweep as its report takes it: what was searched, and what every trial came to.

No TensorFlow, Keras Tuner or MLflow here: whoever has read the trials fills these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
        key: dotted configuration key, such as ``optimizer.learning_rate``.
        kind: what its values are.
        low: least value of a float or an int, itself included; None otherwise.
        high: greatest value, itself included; None otherwise.
        log: whether values are spread evenly over the logarithm.
        choices: of a choice, in the order in which they are shown: strings, numbers, booleans,
            None and lists of them; empty otherwise.
        when: what it depends on: key of a dimension that comes earlier -> the value that it must
            have, or in a tuple (not a list, which is one value) any of several. Empty where it
            always counts.

    Raises:
        ValueError: it is none of these.
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
        names = [format_value(choice) for choice in self.choices]
        _expect(len(set(names)) == len(names), "choices that differ", choices)

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers on a scale."""
        return self.kind in {"float", "int"}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its values, in order; none where they are numbers on a scale."""
        values = (False, True) if self.kind == "bool" else self.choices
        return tuple(format_value(value) for value in values)

    def holds(self, value: object) -> bool:
        """Whether a value lies in it."""
        if not self.is_number:
            return format_value(value) in self.names
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            return False
        slack = 1e-9 * max(abs(self.low or 0), abs(self.high or 0))  # of steps on a log scale
        return (self.low or 0) - slack <= float(value) <= (self.high or 0) + slack


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep searched and found so far.

    Attributes:
        study: the MLflow experiment.
        name: of the sweep: the arm that it tunes, or what the user called it.
        command: that makes the sweep, and continues it.
        objective: the metric that was searched, such as ``val/balanced_accuracy``; always of the
            validation split.
        higher_is_better: whether the greatest score is the best, else the least.
        algorithm: Keras Tuner's, such as ``hyperband``.
        dimensions: what was searched; what a dimension depends on comes before it.
        trials: one row a trial, with the columns

            * ``trial``: str; Keras Tuner's id, unique;
            * ``number``: int; the trial's place in the order in which trials began, unique;
            * ``status``: str; one of ``STATUSES``;
            * ``score``: float; the objective, NaN where there is none;
            * ``scores``: list of float; the objective of each of its runs, in the order of
              ``repeats``; ``score`` is their mean. Empty where there are none;
            * ``epochs``: int; trained, with those of a trial that it continues;
            * ``steps``: float; optimizer steps that this trial itself took, over all its runs;
            * ``seconds``: float; of fitting and evaluating, over all its runs;
            * ``run_id``: str; MLflow's, empty where it has none;
            * ``reason``: str; why it failed or was killed, else empty;
            * ``rung``: int; Hyperband's budget: 0 for the smallest of the whole sweep, whatever
              the bracket, so that trials of one rung had equally many epochs to train; -1 where
              all trials of the sweep have the same budget;
            * ``value/<key>``: one for each dimension; what the trial used, None or NaN where the
              dimension's condition does not hold.
        seed: of the search.
        budget: of the sweep in a few words, such as ``40 trials of up to 15 epochs``.
        data: what it was searched on, shown as it is: ``dataset``, ``protocol`` and their like.
        untuned: what the arm has without tuning: key -> value, as far as it is known.
        next_command: that compares the tuned configuration with the untuned arm over seeds; empty
            where nothing was found.
        repeats: what the entries of ``scores`` are, such as ``("seed 0", "seed 1")``; empty where
            it is not known.

    Raises:
        ValueError: a column is missing, a row contradicts the dimensions, or a value is not what
            is said here.
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
        """Which trials a dimension counts in: bool, shape (trials,)."""
        applies = np.ones(len(self.trials), bool)
        by_key = {known.key: known for known in self.dimensions}
        for key, wanted in dimension.when.items():
            allowed = [format_value(value) for value in list_alternatives(wanted)]
            names = self.trials[f"value/{key}"].map(format_value)
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
        """The trial with the best score, of several the earliest; None where none has a score.

        Hyperband's trials count whatever their rung: Li et al. (2018), "Hyperband", algorithm 1,
        returns the configuration with the best intermediate result.
        """
        scored = self.scored
        if scored.empty:
            return None
        scores = scored["score"].to_numpy(float)
        return scored.iloc[int(scores.argmax() if self.higher_is_better else scores.argmin())]


def list_alternatives(wanted: object) -> tuple[object, ...]:
    """The values of which a condition asks for any one; see ``Dimension.when``."""
    return wanted if isinstance(wanted, tuple) else (wanted,)


def format_value(value: object) -> str:
    """A value as it stands in a configuration, numbers to ten digits: ``null``, ``[a, 0.1]``.

    Args:
        value: a string, number, boolean, None, or a list or tuple of them.
    """
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(format_value(item) for item in value)}]"
    if isinstance(value, int | float | np.number):
        return f"{float(value):.10g}"
    return str(value)


def _expect(holds: bool, what: str, received: object) -> None:
    if not holds:
        raise ValueError(f"Expected {what}. Received {received!r}.")
