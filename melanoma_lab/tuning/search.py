"""The search: an oracle proposes, a trial is trained, its score goes back; Keras Tuner's loop."""

from __future__ import annotations

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
from melanoma_lab.errors import RunError, UserError, explain_os_error
from melanoma_lab.tuning import algorithms
from melanoma_lab.tuning.space import Searched
from melanoma_lab.tuning.trial import Outcome, Proposal, Trials


@dataclass(frozen=True)
class Ended:
    """A trial that is over, for whoever shows how far the search has come.

    Attributes:
        proposal: what it was.
        number: how many trials have ended with it.
        outcome: what came of it; None where it failed.
        reason: why it failed.
        seconds: that it took in this process.
    """

    proposal: Proposal
    number: int
    outcome: Outcome | None
    reason: str
    seconds: float


class TooManyFailuresError(RunError):
    """So many trials failed in a row that going on is pointless."""


class Search(BaseTuner):
    """Keras Tuner's loop over the lab's trials.

    Args:
        oracle: as ``algorithms.build_oracle`` gives it.
        searched: the checked space.
        tuner: the group's chosen option.
        trials: trains them.
        folder: where the oracle keeps its state; one search has one.
        on_end: told every trial that has ended.
    """

    def __init__(
        self,
        oracle: Any,
        searched: Sequence[Searched],
        tuner: Tuner,
        trials: Trials,
        *,
        folder: Path,
        on_end: Callable[[Ended], None],
    ) -> None:
        self._searched, self._tuner, self._trials = searched, tuner, trials
        self._on_end = on_end
        self._outcome: Outcome | None = None
        self._started = 0.0
        self.unsent = 0
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)
        # An earlier process has deleted what was not needed when it ended.
        self._forgotten = set(oracle.end_order) - self._needed()

    def save(self) -> None:
        """Nothing: the oracle's file is the search's whole state."""

    def reload(self) -> None:
        """Likewise."""

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Train a trial: its objective."""
        proposal = self.proposal(trial)
        best = best_trial(self.oracle)
        said = f"trial {len(self.oracle.end_order) + 1}"
        if best is not None:
            said += f", best {best.score:.3f}"
        self._outcome = self._trials.run(proposal, said)
        self.unsent += self._outcome.unsent
        return {self._tuner.objective: self._outcome.score}

    def proposal(self, trial: Any) -> Proposal:
        """What an oracle's trial is to the lab."""
        values = trial.hyperparameters.values
        after = values.get(algorithms.PROMOTED_FROM)
        epochs = None
        if isinstance(self._tuner, Hyperband):
            epochs = (self._tuner.max_epochs, int(values[algorithms.EPOCHS]))
        return Proposal(
            trial.trial_id,
            algorithms.texts_of(values, self._searched),
            epochs,
            self.proposal(self.oracle.get_trial(after)) if after else None,
        )

    def on_trial_begin(self, trial: Any) -> None:
        """Start the clock."""
        self._outcome, self._started = None, time.perf_counter()

    def _try_run_and_update_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Keras Tuner's, with a reason in the user's words where a trial fails."""
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

    def on_trial_end(self, trial: Any) -> None:
        """Give the score back, tell, delete state that nobody needs, and look at the failures.

        Raises:
            TooManyFailuresError: too many trials in a row have failed.
        """
        proposal = self.proposal(trial)
        self.oracle.end_trial(trial)
        ended = self.oracle.end_order
        self._on_end(
            Ended(
                proposal,
                len(ended),
                self._outcome,
                trial.message or "",
                time.perf_counter() - self._started,
            )
        )
        self._tidy()
        row = failed_in_a_row(self.oracle)
        if row >= self._tuner.max_failures:
            raise TooManyFailuresError(
                f"{row} trials in a row have failed (tuner.max_failures={self._tuner.max_failures}"
                f"), the last one: {trial.message} The same command goes on with the next trial."
            )

    def _tidy(self) -> None:
        """Keep the states of the best trial, and of those that may be promoted."""
        for trial_id in set(self.oracle.end_order) - self._needed() - self._forgotten:
            self._trials.forget(self.proposal(self.oracle.get_trial(trial_id)))
            self._forgotten.add(trial_id)

    def _needed(self) -> set[str]:
        best = best_trial(self.oracle)
        needed = {best.trial_id} if best is not None else set()
        if isinstance(self.oracle, algorithms.HyperbandOracle):
            under_way = [t for t in self.oracle.trials.values() if t.status not in algorithms.ENDED]
            begun_as = [t.hyperparameters.values.get(algorithms.PROMOTED_FROM) for t in under_way]
            needed |= self.oracle.promotable() | {trial for trial in begun_as if trial}
        return needed


def best_trial(oracle: Any) -> Any:
    """The completed trial with the best score, the first of several; None where there is none."""
    completed = [t for t in oracle.trials.values() if t.status == TrialStatus.COMPLETED]
    sign = -1 if oracle.objective.direction == "max" else 1
    return min(completed, key=lambda trial: sign * trial.score, default=None)


def failed_in_a_row(oracle: Any) -> int:
    """How many trials have failed since the last one that did not."""
    row = 0
    for trial_id in reversed(oracle.end_order):
        if oracle.trials[trial_id].status != TrialStatus.FAILED:
            break
        row += 1
    return row


def go_on(oracle: Any, folder: Path) -> str | None:
    """Go on from the state of an earlier process, if there is any.

    A file that is damaged is put aside. The search then begins anew, which proposes the same
    trials; those that are recorded as finished are not trained again.

    Args:
        oracle: just built.
        folder: of the search.

    Returns:
        What a user should know; None where there is nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    oracle.keep_in(folder)
    path = folder / algorithms.STATE
    if not path.exists():
        return None
    budget = {
        name: getattr(oracle, name) for name in ("hyperband_iterations",) if hasattr(oracle, name)
    }
    try:
        oracle.reload()
    except algorithms.DamagedStateError as error:
        aside = path.with_name(
            f"oracle.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
        )
        path.rename(aside)
        return (
            f"The search's state is damaged ({error}). It is kept as {aside}; the search begins "
            "anew with the same proposals, and what is recorded as finished is not trained again."
        )
    for name, value in budget.items():  # may have been raised
        setattr(oracle, name, value)
    return None
