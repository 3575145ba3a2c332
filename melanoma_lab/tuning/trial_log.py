"""The log of a search's trials: progress, failures, and the checkpoints that are still needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras_tuner.src.engine.trial import TrialStatus

from melanoma_lab.config.schema.tuner import Hyperband, Tuner
from melanoma_lab.core.errors import RunError
from melanoma_lab.tuning import oracles
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.trial import Proposal
from melanoma_lab.tuning.trial_runner import TrialRunner


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended, for messages about the search's progress.

    Attributes:
        proposal: the trial's id, values and epochs.
        number: the number of trials that have ended, including this one.
        score: its score; None if it failed.
        reason: why it failed, else empty.
        seconds: the seconds that it took.
        parallel_trials: the number of trials that ran when it ended, including this one.
    """

    proposal: Proposal
    number: int
    score: float | None
    reason: str
    seconds: float
    parallel_trials: int


class TooManyFailuresError(RunError):
    """Raised if ``tuner.max_failures`` trials in a row have failed."""


class TrialLog:
    """Handles the end of every trial of a search, whichever process trained it.

    Args:
        oracle: an oracle from ``oracles.build_oracle``.
        searched: the validated search space.
        tuner: the chosen option of the group ``tuner``.
        trials: the runner of the search's trials.
        on_end: called with every trial that has ended.
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
        #: The number of trials whose runs are saved on disk and not yet sent.
        self.unsent = 0
        # An earlier process has deleted the checkpoints that were not needed when it ended.
        self._deleted = set(oracle.end_order) - self._list_needed_trials()

    def read_proposal(self, trial: Any) -> Proposal:
        """Convert an oracle's trial to a proposal."""
        return read_proposal(trial, self._tuner, self._searched, self.oracle.get_trial)

    def format_progress_prefix(self) -> str:
        """Return the text before the next trial's progress bar."""
        number = f"trial {len(self.oracle.end_order) + 1}"
        best = find_best_trial(self.oracle)
        return number if best is None else f"{number}, best {best.score:.3f}"

    def record_end(self, trial_id: str, *, seconds: float, unsent: bool = False) -> None:
        """Report a trial's end, delete checkpoints that are no longer needed, count failures.

        Args:
            trial_id: the trial's id; the oracle knows already that it has ended.
            seconds: the seconds that it took.
            unsent: whether some of its runs are saved on disk and not yet sent.

        Raises:
            TooManyFailuresError: too many trials in a row have failed.
        """
        self.unsent += unsent
        trial = self.oracle.get_trial(trial_id)
        score = trial.score if trial.status == TrialStatus.COMPLETED else None
        others = {t.trial_id for t in self.oracle.ongoing_trials.values()} - {trial_id}
        finished = FinishedTrial(
            proposal=self.read_proposal(trial),
            number=self.oracle.end_order.index(trial_id) + 1,
            score=score,
            reason=trial.message or "",
            seconds=seconds,
            parallel_trials=len(others) + 1,
        )
        self._on_end(finished)
        self._delete_checkpoints()
        failed = count_failures_in_a_row(self.oracle)
        if failed >= self._tuner.max_failures:
            raise TooManyFailuresError(
                f"{failed} trials in a row have failed "
                f"(tuner.max_failures={self._tuner.max_failures}), the last one: "
                f"{finished.reason} The same command resumes with the next trial."
            )

    def _delete_checkpoints(self) -> None:
        """Delete all checkpoints but those of the best trial and of trials that may continue."""
        for trial_id in set(self.oracle.end_order) - self._list_needed_trials() - self._deleted:
            self.trials.delete_checkpoints(self.read_proposal(self.oracle.get_trial(trial_id)))
            self._deleted.add(trial_id)

    def _list_needed_trials(self) -> set[str]:
        best = find_best_trial(self.oracle)
        needed = {best.trial_id} if best is not None else set()
        if isinstance(self.oracle, oracles.HyperbandOracle):
            under_way = [
                t for t in self.oracle.trials.values() if t.status not in oracles.ENDED_STATUSES
            ]
            continued = [t.hyperparameters.values.get(oracles.PROMOTED_FROM) for t in under_way]
            needed |= self.oracle.find_promotable() | {trial for trial in continued if trial}
        return needed


def read_proposal(
    trial: Any, tuner: Tuner, searched: Sequence[HyperParameter], get_trial: Callable[[str], Any]
) -> Proposal:
    """Convert an oracle's trial to a proposal.

    Args:
        trial: Keras Tuner's trial, from the oracle or its chief.
        tuner: the chosen option of the group ``tuner``.
        searched: the validated search space.
        get_trial: a function from a trial's id to Keras Tuner's trial.
    """
    values = trial.hyperparameters.values
    promoted_from = values.get(oracles.PROMOTED_FROM)
    epochs = None
    if isinstance(tuner, Hyperband):
        epochs = (tuner.max_epochs, int(values[oracles.EPOCHS]))
    return Proposal(
        trial.trial_id,
        oracles.format_overrides(values, searched),
        epochs,
        read_proposal(get_trial(promoted_from), tuner, searched, get_trial)
        if promoted_from
        else None,
    )


def find_best_trial(oracle: Any) -> Any:
    """Return the completed trial with the best score, the first of equal ones; None if none."""
    completed = [t for t in oracle.trials.values() if t.status == TrialStatus.COMPLETED]
    sign = -1 if oracle.objective.direction == "max" else 1
    return min(completed, key=lambda trial: sign * trial.score, default=None)


def count_failures_in_a_row(oracle: Any) -> int:
    """Count the failed trials since the last one that did not fail."""
    failures = 0
    for trial_id in reversed(oracle.end_order):
        if oracle.trials[trial_id].status != TrialStatus.FAILED:
            break
        failures += 1
    return failures
