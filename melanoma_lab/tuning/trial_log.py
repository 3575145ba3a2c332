"""What a search keeps of its trials as they end: the best, the failures, the states it may need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras_tuner.src.engine.trial import TrialStatus

from melanoma_lab.config.schema.tuner import Hyperband, Tuner
from melanoma_lab.core.errors import RunError
from melanoma_lab.tuning import oracles
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.trial import Proposal, TrialRunner


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that is over, for whoever shows how far the search has come.

    Attributes:
        proposal: what it was.
        number: how many trials have ended with it.
        score: that it got; None where it failed.
        reason: why it failed.
        seconds: that it took.
        at_once: how many trials were under way when it ended, itself included.
    """

    proposal: Proposal
    number: int
    score: float | None
    reason: str
    seconds: float
    at_once: int = 1


class TooManyFailuresError(RunError):
    """So many trials failed in a row that going on is pointless."""


class TrialLog:
    """Told every trial of a search that has ended, wherever it was trained.

    Args:
        oracle: as ``oracles.build_oracle`` gives it.
        searched: the checked space.
        tuner: the group's chosen option.
        trials: of the search.
        on_end: told every trial that has ended.
    """

    def __init__(
        self,
        oracle: Any,
        searched: Sequence[HyperParameter],
        tuner: Tuner,
        trials: TrialRunner,
        *,
        on_end: Callable[[FinishedTrial], None],
    ) -> None:
        self.oracle, self.trials = oracle, trials
        self._searched, self._tuner, self._on_end = searched, tuner, on_end
        #: Trials whose runs wait on a disk to be sent.
        self.unsent = 0
        # An earlier process has deleted what was not needed when it ended.
        self._forgotten = set(oracle.end_order) - self._needed()

    def proposal(self, trial: Any) -> Proposal:
        """What an oracle's trial is to the lab."""
        return read_proposal(trial, self._tuner, self._searched, self.oracle.get_trial)

    def said(self) -> str:
        """What the progress bar of the next trial begins with."""
        said = f"trial {len(self.oracle.end_order) + 1}"
        best = find_best_trial(self.oracle)
        return said if best is None else f"{said}, best {best.score:.3f}"

    def ended(self, trial_id: str, *, seconds: float, unsent: bool = False) -> None:
        """Tell, delete the state that nobody needs any more, and look at the failures.

        Args:
            trial_id: of the trial, which the oracle knows to have ended.
            seconds: that it took.
            unsent: some of its runs wait on a disk to be sent.

        Raises:
            TooManyFailuresError: too many trials in a row have failed.
        """
        self.unsent += unsent
        trial = self.oracle.get_trial(trial_id)
        score = trial.score if trial.status == TrialStatus.COMPLETED else None
        others = {t.trial_id for t in self.oracle.ongoing_trials.values()} - {trial_id}
        number = self.oracle.end_order.index(trial_id) + 1
        reason = trial.message or ""
        self._on_end(
            FinishedTrial(
                self.proposal(trial), number, score, reason, seconds, at_once=len(others) + 1
            )
        )
        self._tidy()
        row = count_failures_in_a_row(self.oracle)
        if row >= self._tuner.max_failures:
            raise TooManyFailuresError(
                f"{row} trials in a row have failed (tuner.max_failures={self._tuner.max_failures}"
                f"), the last one: {reason} The same command goes on with the next trial."
            )

    def _tidy(self) -> None:
        """Keep the states of the best trial, and of those that may be promoted."""
        for trial_id in set(self.oracle.end_order) - self._needed() - self._forgotten:
            self.trials.forget(self.proposal(self.oracle.get_trial(trial_id)))
            self._forgotten.add(trial_id)

    def _needed(self) -> set[str]:
        best = find_best_trial(self.oracle)
        needed = {best.trial_id} if best is not None else set()
        if isinstance(self.oracle, oracles.HyperbandOracle):
            under_way = [
                t for t in self.oracle.trials.values() if t.status not in oracles.ENDED_STATUSES
            ]
            begun_as = [t.hyperparameters.values.get(oracles.PROMOTED_FROM) for t in under_way]
            needed |= self.oracle.find_promotable() | {trial for trial in begun_as if trial}
        return needed


def read_proposal(
    trial: Any, tuner: Tuner, searched: Sequence[HyperParameter], get_trial: Callable[[str], Any]
) -> Proposal:
    """What an oracle's trial is to the lab.

    Args:
        trial: as the oracle, or its chief, has handed it out.
        tuner: the group's chosen option.
        searched: the checked space.
        get_trial: from an id to the trial.
    """
    values = trial.hyperparameters.values
    after = values.get(oracles.PROMOTED_FROM)
    epochs = None
    if isinstance(tuner, Hyperband):
        epochs = (tuner.max_epochs, int(values[oracles.EPOCHS]))
    return Proposal(
        trial.trial_id,
        oracles.format_overrides(values, searched),
        epochs,
        read_proposal(get_trial(after), tuner, searched, get_trial) if after else None,
    )


def find_best_trial(oracle: Any) -> Any:
    """The completed trial with the best score, the first of several; None where there is none."""
    completed = [t for t in oracle.trials.values() if t.status == TrialStatus.COMPLETED]
    sign = -1 if oracle.objective.direction == "max" else 1
    return min(completed, key=lambda trial: sign * trial.score, default=None)


def count_failures_in_a_row(oracle: Any) -> int:
    """How many trials have failed since the last one that did not."""
    row = 0
    for trial_id in reversed(oracle.end_order):
        if oracle.trials[trial_id].status != TrialStatus.FAILED:
            break
        row += 1
    return row
