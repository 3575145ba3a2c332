"""Keras Tuner's search loop: the oracle proposes values, a trial is trained, its score returned."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path
from typing import Any

from keras_tuner import errors as keras_tuner_errors
from keras_tuner.src.engine.base_tuner import BaseTuner
from keras_tuner.src.engine.trial import TrialStatus

from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.core.files import DamagedFileError
from melanoma_lab.tuning import oracles
from melanoma_lab.tuning.trial import TrialScore
from melanoma_lab.tuning.trial_log import TrialLog


class LabTuner(BaseTuner):
    """Base class of tuners whose trials are runs of this package.

    Args:
        oracle: an oracle from ``oracles.build_oracle``, or a worker's client of one.
        folder: the folder of the search, or the worker's own.
    """

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
    """A search that trains its trials in this process, one after the other.

    Args:
        trial_log: the search's trial log.
        objective: the name of the metric that is the score.
        folder: the folder of the oracle's state; each search has its own.
    """

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
    """Resume from the state that an earlier process saved, if there is any.

    A damaged state file is renamed. The search then starts again and proposes the same trials;
    those that are recorded as finished are not trained again.

    Args:
        oracle: a newly built oracle.
        folder: the folder of the search; created if it does not exist.

    Returns:
        A message for the user if the file was damaged, else None.
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
