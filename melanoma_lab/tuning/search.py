"""Keras Tuner's search loop and its log: an oracle proposes values, a trial is trained and scored.

The log reports progress, counts failures, and deletes the checkpoints that are no longer needed.
"""

from __future__ import annotations

import itertools
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_tuner import errors as keras_tuner_errors
from keras_tuner.src.engine.base_tuner import BaseTuner
from keras_tuner.src.engine.trial import TrialStatus

from melanoma_lab.config.schema.tuner import Hyperband, Tuner
from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.core.files import DamagedFileError
from melanoma_lab.tuning import oracles
from melanoma_lab.tuning.plan import Proposal, TrialScore
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.trial_runner import TrialRunner


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended, for messages about the search's progress.

    Attributes:
        number: the number of trials that have ended, including this one.
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
    """Handles the end of every trial of a search, whichever process trained it."""

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
    """Convert an oracle's trial to a proposal."""
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
    ended = (oracle.trials[trial_id].status for trial_id in reversed(oracle.end_order))
    return sum(1 for _ in itertools.takewhile(lambda status: status == TrialStatus.FAILED, ended))


class LabTuner(BaseTuner):
    """Base class of tuners whose trials are runs of this package."""

    def __init__(self, oracle: Any, *, folder: Path) -> None:
        self.trial_score: TrialScore | None = None
        self._started = 0.0
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)

    def save(self) -> None:
        """Do nothing: the oracle's file holds the whole state of the search."""

    def reload(self) -> None:
        """Do nothing, as ``save``."""

    def on_trial_begin(self, trial: Any) -> None:
        """Start the clock."""
        self.trial_score, self._started = None, time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since the trial began."""
        return time.perf_counter() - self._started

    def _try_run_and_update_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Run a trial as Keras Tuner does; if it fails, set a message that users understand."""
        try:
            self._run_and_update_trial(trial, *fit_args, **fit_kwargs)
        except keras_tuner_errors.FatalError:
            raise
        except (UserError, RunError) as error:
            trial.message = str(error)
        except OSError as error:
            trial.message = explain_os_error(error)
        except Exception as error:  # noqa: BLE001 - a bug in one trial must not cost the others
            traceback.print_exc()
            trial.message = f"{type(error).__name__}: {error}"
        else:
            trial.status, trial.message = TrialStatus.COMPLETED, None
            return
        trial.status = TrialStatus.INVALID


class Search(LabTuner):
    """A search that trains its trials in this process, one after the other."""

    def __init__(self, trial_log: TrialLog, objective: str, *, folder: Path) -> None:
        self._trial_log, self._objective = trial_log, objective
        super().__init__(trial_log.oracle, folder=folder)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Train a trial, and return its objective."""
        proposal = self._trial_log.read_proposal(trial)
        self.trial_score = self._trial_log.trials.run(
            proposal, self._trial_log.format_progress_prefix()
        )
        return {self._objective: self.trial_score.score}

    def on_trial_end(self, trial: Any) -> None:
        """Report the trial's end to the oracle and the trial log.

        Raises:
            TooManyFailuresError: too many trials in a row have failed.
        """
        self.oracle.end_trial(trial)
        unsent = self.trial_score is not None and self.trial_score.unsent
        self._trial_log.record_end(trial.trial_id, seconds=self.seconds(), unsent=unsent)


def resume_search(oracle: Any, folder: Path) -> str | None:
    """Resume from the state that an earlier process saved; return a message if it was damaged.

    A damaged state file is renamed. The search then starts again and proposes the same trials;
    those that are recorded as finished are not trained again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    oracle.set_folder(folder)
    path = folder / oracles.STATE_FILE
    if not path.exists():
        return None
    iterations = getattr(oracle, "hyperband_iterations", None)
    try:
        oracle.reload()
    except DamagedFileError as error:
        aside = path.with_name(
            f"oracle.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
        )
        path.rename(aside)
        return (
            f"The search's state is damaged ({error}). It is kept as {aside}; the search starts "
            "over with the same proposals, and finished runs are not trained again."
        )
    if iterations is not None:  # of Hyperband; this command may have a larger budget
        oracle.hyperband_iterations = iterations
    return None
