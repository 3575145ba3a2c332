"""Keras Tuner's oracles, made to survive: what proposes the values of the next trial.

An oracle's whole state, trials included, is one file that is there whole or not at all, and what it
proposes is a function of its seed and the trials so far. Keras Tuner writes a file for the oracle
and one for every trial, so that a kill between two of them repeats a finished trial or skips a
number; its grid and its Gaussian process forget, on reloading, where they were.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.src.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from melanoma_lab.config.schema.tuner import BayesianOptimization, GridSearch, Hyperband, Tuner
from melanoma_lab.core.checksums import (
    DamagedFileError,
    read_checksummed_text,
    write_checksummed_text,
)
from melanoma_lab.core.metric_names import higher_is_better
from melanoma_lab.tuning.search_space import HyperParameter

#: What Keras Tuner's Hyperband adds to the values of a trial.
EPOCHS, PROMOTED_FROM, ROUND, BRACKET = (
    *("tuner/epochs", "tuner/trial_id", "tuner/round", "tuner/bracket"),
)
#: The file that holds the state.
STATE_FILE = "oracle.json"
#: Trials that are over, well or not.
ENDED_STATUSES = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class _SingleFileOracle:
    """An oracle that keeps its state and its trials in one file."""

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    end_order: list[str]
    tuner_ids: set[str]
    _retry_queue: list[str]
    #: How many trials there may be; None: as many as it proposes. Not Keras Tuner's ``max_trials``,
    #: from which it makes the ids of trials: they would change with it.
    limit: int | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's values, unless there are enough trials."""
        if self.limit is not None and len(self.trials) >= self.limit:
            return {"status": TrialStatus.STOPPED, "values": None}
        return dict(super().populate_space(trial_id))  # type: ignore[misc]

    def set_folder(self, folder: Path) -> None:
        """Say where the file is to be, whose name is ``STATE_FILE``."""
        self._set_project_dir(str(folder.parent), folder.name)  # type: ignore[attr-defined]

    def save(self) -> None:
        """Write everything beside its place, force it to the disk, and put it there."""
        content = {
            "state": self.get_state(),  # type: ignore[attr-defined]
            "trials": [trial.get_state() for trial in self.trials.values()],
        }
        text = json.dumps(content)
        path = Path(self._get_oracle_fname())  # type: ignore[attr-defined]
        write_checksummed_text(path, text, durable=True)

    def reload(self) -> None:
        """Go on from what ``save`` wrote; trials that were under way are run again first.

        Raises:
            DamagedFileError: it is not what was written.
        """
        path = Path(self._get_oracle_fname())  # type: ignore[attr-defined]
        try:
            content = json.loads(read_checksummed_text(path) or "")
            trials = [Trial.from_state(state) for state in content["trials"]]
            self.trials = {trial.trial_id: trial for trial in trials}
            self.set_state(content["state"])  # type: ignore[attr-defined]
        except DamagedFileError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(f"{path}: cannot be read ({error})") from error
        # The state is saved when a trial has ended and is still among those under way.
        under_way = {trial.trial_id for trial in self.ongoing_trials.values()} - {*self.end_order}
        self._retry_queue = sorted({*self._retry_queue, *under_way}, reverse=True)  # pops the last
        self.ongoing_trials = {}

    def requeue(self, tuner_id: str) -> None:
        """Put the trial that a tuner had, and will not end, before those to come."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue = sorted({*self._retry_queue, trial.trial_id}, reverse=True)
            self.save()

    def reassign(self, tuner_id: str, trial_id: str) -> bool:
        """Leave a trial that waits to be run again to the tuner that has it already.

        Returns:
            Whether it has been waiting.
        """
        if trial_id not in self._retry_queue or tuner_id in self.ongoing_trials:
            return False
        self._retry_queue.remove(trial_id)
        self.tuner_ids.add(tuner_id)
        self.ongoing_trials[tuner_id] = self.trials[trial_id]
        return True

    @property
    def has_pending(self) -> bool:
        """Whether a trial is under way, or waits to be run again."""
        return bool(self.ongoing_trials or self._retry_queue)

    def _save_trial(self, trial: Any) -> None:
        """It is in the one file."""


class RandomOracle(_SingleFileOracle, keras_tuner.oracles.RandomSearchOracle):
    """Every trial drawn anew."""


class BayesianOracle(_SingleFileOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process; what is random about a proposal is a function of the seed and its number.

    What the process proposes may have been tried, where values are few; then it is drawn instead.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's values."""
        self._random_state = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        with threadpool_limits(1), warnings.catch_warnings():
            # Matrices this small are slower on several threads; and where a trial's score hardly
            # depends on anything, scikit-learn warns of the kernel's bounds at every proposal.
            warnings.simplefilter("ignore", ConvergenceWarning)
            proposed = super().populate_space(trial_id)
        if proposed["values"] is not None and self._duplicate(proposed["values"]):
            return dict(self._random_populate_space())
        return proposed


class _GridOracleBase(keras_tuner.Oracle):
    """Every combination, the last key varying fastest: trial n has the n-th."""

    def __init__(self, searched: Sequence[HyperParameter], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._searched = searched

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's values."""
        nth = itertools.islice(iterate_grid(self._searched), len(self.trials), None)
        values = next(nth, None)
        if values is None:
            return {"status": TrialStatus.STOPPED, "values": None}
        return {"status": TrialStatus.RUNNING, "values": values}


class GridOracle(_SingleFileOracle, _GridOracleBase):
    """Every combination."""


class HyperbandOracle(_SingleFileOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband that neither failed trials nor a small space bring to a standstill.

    Keras Tuner waits for as many completed trials as a round was to have; with one failed among
    nine it promotes none. Here a failed trial is one of the worst. Where no values are left to
    draw, a bracket goes on with those that it has.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's values: of a promoted trial, or drawn."""
        while True:
            for bracket in self._brackets:
                values = self._promoted(bracket, trial_id) or self._fresh(bracket, trial_id)
                if values is not None:
                    return {"status": TrialStatus.RUNNING, "values": values}
            if self._current_bracket == 0 and (
                self._current_iteration + 1 >= self.hyperband_iterations
            ):
                waiting = TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED
                return {"status": waiting, "values": None}
            self._increment_bracket_num()
            self._start_new_bracket()

    def find_promotable(self) -> set[str]:
        """The trials that may still be promoted."""
        found = set()
        for bracket in self._brackets:
            for number in range(1, len(bracket["rounds"])):
                before, here = bracket["rounds"][number - 1 : number + 1]
                if len(here) < self._planned(bracket, number):
                    found |= {info["id"] for info in before} - {info["past_id"] for info in here}
        return found

    def _fresh(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """Values drawn for a bracket's first round."""
        first, number = bracket["rounds"][0], bracket["bracket_num"]
        if bracket.get("exhausted") or len(first) >= self._get_size(number, 0):
            return None
        values = self._random_values()
        if values is None:
            bracket["exhausted"] = True
            return None
        first.append({"past_id": None, "id": trial_id})
        return {**values, **self._place(number, 0), "tuner/initial_epoch": 0}

    def _promoted(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """Values of the best trial of a round that is certain to be among those that go on."""
        number = bracket["bracket_num"]
        if not bracket.get("exhausted") and len(bracket["rounds"][0]) < self._get_size(number, 0):
            return None
        for k in range(1, len(bracket["rounds"])):
            before, here = bracket["rounds"][k - 1 : k + 1]
            past, size = self._planned(bracket, k - 1), self._planned(bracket, k)
            gone = {info["past_id"] for info in here}
            left = [self.trials[info["id"]] for info in before if info["id"] not in gone]
            ended = [trial for trial in left if trial.status in ENDED_STATUSES]
            good = [trial for trial in ended if trial.status == TrialStatus.COMPLETED]
            if good and len(here) < size and len(ended) > past - size:
                sign = -1 if self.objective.direction == "max" else 1
                best = min(good, key=lambda trial: sign * trial.score)
                here.append({"past_id": best.trial_id, "id": trial_id})
                own = {n: v for n, v in best.hyperparameters.values.items() if "tuner/" not in n}
                return {
                    **own,
                    **self._place(number, k),
                    "tuner/initial_epoch": self._get_epochs(number, k - 1),
                    PROMOTED_FROM: best.trial_id,
                }
        return None

    def _place(self, bracket: int, number: int) -> dict[str, Any]:
        return {EPOCHS: self._get_epochs(bracket, number), BRACKET: bracket, ROUND: number}

    def _planned(self, bracket: Mapping[str, Any], number: int) -> int:
        """How many trials a round has when it is full."""
        if bracket.get("exhausted"):
            return math.ceil(len(bracket["rounds"][0]) / float(self.factor) ** number)
        return int(self._get_size(bracket["bracket_num"], number))

    def _remove_completed_brackets(self) -> None:
        """Nothing: a bracket that is full proposes nothing."""


def build_oracle(tuner: Tuner, searched: Sequence[HyperParameter]) -> Any:
    """The oracle of a configured search.

    Args:
        tuner: the group's chosen option.
        searched: the checked space.
    """
    direction = "max" if higher_is_better(tuner.objective) else "min"
    shared: dict[str, Any] = {
        "objective": keras_tuner.Objective(tuner.objective, direction),
        "hyperparameters": build_hyperparameters(searched),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": tuner.seed + 1,  # 0 would be taken for none
        "max_consecutive_failed_trials": None,  # counted by the search itself
    }
    if isinstance(tuner, Hyperband):
        oracle = HyperbandOracle(
            max_epochs=tuner.max_epochs,
            factor=tuner.factor,
            hyperband_iterations=tuner.iterations,
            **shared,
        )
    elif isinstance(tuner, GridSearch):
        oracle = GridOracle(searched, **shared)
    elif isinstance(tuner, BayesianOptimization):
        oracle = BayesianOracle(
            num_initial_points=tuner.initial_trials,
            beta=tuner.exploration,
            **shared,
        )
    else:
        oracle = RandomOracle(**shared)
    oracle.verbose = 0
    oracle.limit, oracle.max_trials = getattr(tuner, "max_trials", None), None
    return oracle


def build_hyperparameters(searched: Sequence[HyperParameter]) -> Any:
    """A space as Keras Tuner takes it; choices are what stands in a Hydra override."""
    space = keras_tuner.HyperParameters()
    for entry in searched:
        with ExitStack() as conditions:
            for key, choices in entry.when.items():
                conditions.enter_context(space.conditional_scope(key, list(choices)))
            if entry.choices:
                space.Choice(entry.key, list(entry.choices), ordered=False)
                continue
            declare = space.Int if entry.kind == "int" else space.Float
            number = int if entry.kind == "int" else float
            declare(
                entry.key,
                number(entry.low),
                number(entry.high),
                step=None if entry.step is None else number(entry.step),
                sampling="log" if entry.log else "linear",
            )
    return space


def iterate_grid(searched: Sequence[HyperParameter]) -> Iterator[dict[str, Any]]:
    """Every combination of a space's values, the last key varying fastest."""

    def below(known: dict[str, Any], rest: Sequence[HyperParameter]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield known
            return
        entry = rest[0]
        if not entry.active(known):
            yield from below(known, rest[1:])
            return
        numbers = [round(v) if entry.kind == "int" else v for v in entry.grid()] if (
            not entry.choices
        ) else list(entry.choices)  # fmt: skip
        for value in numbers:
            yield from below({**known, entry.key: value}, rest[1:])

    return below({}, searched)


def format_overrides(
    values: Mapping[str, Any], searched: Sequence[HyperParameter]
) -> dict[str, str]:
    """What an oracle proposed, as Hydra overrides have it, in the order of the space."""
    return {
        entry.key: str(values[entry.key]) if entry.choices else entry.text(values[entry.key])
        for entry in searched
        if entry.key in values
    }
