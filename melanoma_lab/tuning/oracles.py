"""Keras Tuner's oracles, which propose the values of the next trial, with crash-safe state.

An oracle's whole state, trials included, is one file that is written atomically, and its proposals
depend only on its seed and the trials so far. Keras Tuner itself writes one file for the oracle and
one for each trial, so that a kill between two of them repeats a finished trial or skips a number;
its grid and its Gaussian process lose their position when they are reloaded.
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
from melanoma_lab.core.files import (
    DamagedFileError,
    read_checksummed_text,
    write_checksummed_text,
)
from melanoma_lab.core.formatting import higher_is_better
from melanoma_lab.tuning.search_space import HyperParameter

#: Names of the values that Keras Tuner's Hyperband adds to those of a trial.
EPOCHS, PROMOTED_FROM = "tuner/epochs", "tuner/trial_id"
ROUND, BRACKET = "tuner/round", "tuner/bracket"
#: The name of the file that holds an oracle's state.
STATE_FILE = "oracle.json"
#: The statuses of trials that have ended, with or without success.
ENDED_STATUSES = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class _SingleFileOracle:
    """A mixin for oracles that keep their state and their trials in one file."""

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    end_order: list[str]
    tuner_ids: set[str]
    _retry_queue: list[str]
    #: The maximum number of trials; None: no limit. Not Keras Tuner's ``max_trials``: it derives
    #: the ids of trials from that, and raising it would change them.
    limit: int | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the next trial's values, or stop if the number of trials has been reached."""
        if self.limit is not None and len(self.trials) >= self.limit:
            return {"status": TrialStatus.STOPPED, "values": None}
        return dict(super().populate_space(trial_id))  # type: ignore[misc]

    def set_folder(self, folder: Path) -> None:
        """Set the folder in which the state file (``STATE_FILE``) is kept."""
        self._set_project_dir(str(folder.parent), folder.name)  # type: ignore[attr-defined]

    def save(self) -> None:
        """Write the state to a temporary file, flush it to the disk, and rename it."""
        content = {
            "state": self.get_state(),  # type: ignore[attr-defined]
            "trials": [trial.get_state() for trial in self.trials.values()],
        }
        text = json.dumps(content)
        path = Path(self._get_oracle_fname())  # type: ignore[attr-defined]
        write_checksummed_text(path, text, durable=True)

    def reload(self) -> None:
        """Load the state that ``save`` wrote; trials that had not ended are run again first.

        Raises:
            DamagedFileError: the file is truncated or was changed.
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
        # The state is saved when a trial has just ended but still counts as an ongoing one.
        under_way = {trial.trial_id for trial in self.ongoing_trials.values()} - {*self.end_order}
        self._retry_queue = sorted({*self._retry_queue, *under_way}, reverse=True)  # pops the last
        self.ongoing_trials = {}

    def requeue(self, tuner_id: str) -> None:
        """Queue the trial of a tuner that will not finish it, before all new trials."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue = sorted({*self._retry_queue, trial.trial_id}, reverse=True)
            self.save()

    def reassign(self, tuner_id: str, trial_id: str) -> bool:
        """Reassign a queued trial to the tuner still training it; return whether it was queued."""
        if trial_id not in self._retry_queue or tuner_id in self.ongoing_trials:
            return False
        self._retry_queue.remove(trial_id)
        self.tuner_ids.add(tuner_id)
        self.ongoing_trials[tuner_id] = self.trials[trial_id]
        return True

    @property
    def has_pending(self) -> bool:
        """Whether a trial is being trained, or is queued to be run again."""
        return bool(self.ongoing_trials or self._retry_queue)

    def _save_trial(self, trial: Any) -> None:
        """Do nothing: ``save`` writes all trials to one file."""


class RandomOracle(_SingleFileOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search: each trial's values are drawn independently."""


class BayesianOracle(_SingleFileOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimisation; a proposal's randomness depends only on the seed and its number.

    If the Gaussian process proposes values that were tried already, which happens in small spaces,
    they are drawn at random instead.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the next trial's values."""
        self._random_state = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        with threadpool_limits(1), warnings.catch_warnings():
            # Matrices this small are slower on several threads. If the score hardly depends on the
            # values, scikit-learn warns of the kernel's bounds at every proposal.
            warnings.simplefilter("ignore", ConvergenceWarning)
            proposed = super().populate_space(trial_id)
        if proposed["values"] is not None and self._duplicate(proposed["values"]):
            return dict(self._random_populate_space())
        return proposed


class _GridOracleBase(keras_tuner.Oracle):
    """Grid search: trial n has the n-th combination; the last key varies fastest."""

    def __init__(self, searched: Sequence[HyperParameter], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._searched = searched

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the next combination, or stop after the last."""
        nth = itertools.islice(iterate_grid(self._searched), len(self.trials), None)
        values = next(nth, None)
        if values is None:
            return {"status": TrialStatus.STOPPED, "values": None}
        return {"status": TrialStatus.RUNNING, "values": values}


class GridOracle(_SingleFileOracle, _GridOracleBase):
    """Grid search over all combinations of a space's values."""


class HyperbandOracle(_SingleFileOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband that does not stall after failed trials or in a small space.

    Keras Tuner waits until a round has its planned number of completed trials; if one of nine
    trials fails, it promotes none. Here failed trials rank last. If no untried values are left, a
    bracket continues with the trials that it has.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the next trial's values: those of a promoted trial, or new random ones."""
        while True:
            for bracket in self._brackets:
                values = self._promote_trial(bracket, trial_id) or self._draw_trial(
                    bracket, trial_id
                )
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
        """Return the ids of the trials that may still be promoted."""
        found = set()
        for bracket in self._brackets:
            for number in range(1, len(bracket["rounds"])):
                before, here = bracket["rounds"][number - 1 : number + 1]
                if len(here) < self._count_planned(bracket, number):
                    found |= {info["id"] for info in before} - {info["past_id"] for info in here}
        return found

    def _draw_trial(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """Draw values for a bracket's first round; None if the round is full."""
        first, number = bracket["rounds"][0], bracket["bracket_num"]
        if bracket.get("exhausted") or len(first) >= self._get_size(number, 0):
            return None
        values = self._random_values()
        if values is None:
            bracket["exhausted"] = True
            return None
        first.append({"past_id": None, "id": trial_id})
        return {**values, **self._describe_place(number, 0), "tuner/initial_epoch": 0}

    def _promote_trial(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """Promote the best trial of a round once no running trial can displace it, else None."""
        number = bracket["bracket_num"]
        if not bracket.get("exhausted") and len(bracket["rounds"][0]) < self._get_size(number, 0):
            return None
        for k in range(1, len(bracket["rounds"])):
            before, here = bracket["rounds"][k - 1 : k + 1]
            past, size = self._count_planned(bracket, k - 1), self._count_planned(bracket, k)
            promoted = {info["past_id"] for info in here}
            left = [self.trials[info["id"]] for info in before if info["id"] not in promoted]
            ended = [trial for trial in left if trial.status in ENDED_STATUSES]
            good = [trial for trial in ended if trial.status == TrialStatus.COMPLETED]
            if good and len(here) < size and len(ended) > past - size:
                sign = -1 if self.objective.direction == "max" else 1
                best = min(good, key=lambda trial: sign * trial.score)
                here.append({"past_id": best.trial_id, "id": trial_id})
                own = {n: v for n, v in best.hyperparameters.values.items() if "tuner/" not in n}
                return {
                    **own,
                    **self._describe_place(number, k),
                    "tuner/initial_epoch": self._get_epochs(number, k - 1),
                    PROMOTED_FROM: best.trial_id,
                }
        return None

    def _describe_place(self, bracket: int, number: int) -> dict[str, Any]:
        return {EPOCHS: self._get_epochs(bracket, number), BRACKET: bracket, ROUND: number}

    def _count_planned(self, bracket: Mapping[str, Any], number: int) -> int:
        """Return the number of trials of a full round."""
        if bracket.get("exhausted"):
            return math.ceil(len(bracket["rounds"][0]) / float(self.factor) ** number)
        return int(self._get_size(bracket["bracket_num"], number))


def build_oracle(tuner: Tuner, searched: Sequence[HyperParameter]) -> Any:
    """Build the oracle of a configured search."""
    direction = "max" if higher_is_better(tuner.objective) else "min"
    shared: dict[str, Any] = {
        "objective": keras_tuner.Objective(tuner.objective, direction),
        "hyperparameters": build_hyperparameters(searched),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": tuner.seed + 1,  # Keras Tuner treats 0 as no seed
        "max_consecutive_failed_trials": None,  # the trial log counts them
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
    """Convert a space to Keras Tuner's; choices are texts as in Hydra overrides."""
    space = keras_tuner.HyperParameters()
    for entry in searched:
        with ExitStack() as conditions:
            for key, choices in entry.when.items():
                conditions.enter_context(space.conditional_scope(key, list(choices)))
            if not entry.is_range:
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
    """Yield every combination of a space's values; the last key varies fastest."""

    def extend(known: dict[str, Any], rest: Sequence[HyperParameter]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield known
            return
        entry = rest[0]
        if not entry.is_active(known):
            yield from extend(known, rest[1:])
            return
        proposed: Sequence[Any] = entry.choices
        if entry.is_range:
            proposed = [round(v) if entry.kind == "int" else v for v in entry.grid()]
        for value in proposed:
            yield from extend({**known, entry.key: value}, rest[1:])

    return extend({}, searched)


def format_overrides(
    values: Mapping[str, Any], searched: Sequence[HyperParameter]
) -> dict[str, str]:
    """Format an oracle's proposal as the values of Hydra overrides, in the order of the space."""
    return {
        entry.key: entry.format(values[entry.key]) if entry.is_range else str(values[entry.key])
        for entry in searched
        if entry.key in values
    }
