"""Keras Tuner's service of an oracle, which knows its workers and outlives them.

Keras Tuner's own never hands the trial of a worker that died to another, and waits for it for ever.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from keras_tuner import HyperParameters
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine.trial import Trial, TrialStatus

from melanoma_lab.tuning.distributed.transport import import_grpc, pack_metadata, unpack_metadata
from melanoma_lab.tuning.search import TrialLog

#: Workers that a trial may take with it before it counts as failed.
MOST_DEATHS = 3


@dataclass(frozen=True)
class SearchInfo:
    """What a chief tells its workers.

    Attributes:
        sweep: the search's fingerprint; workers have the same.
        parent: its run in MLflow.
        mark: of the chief's cache folder.
    """

    sweep: str
    parent: str
    mark: str


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        trial_id: of the trial.
        seconds: since it was handed out.
        unsent: some of its runs wait on a worker's disk to be sent.
    """

    trial_id: str
    seconds: float
    unsent: bool


class OracleService(OracleServicer):
    """Hands out trials and takes in what came of them.

    Args:
        trial_log: of the search.
        facts: for the workers.
        alive_for: seconds for which a worker that was heard is taken to be alive.
    """

    def __init__(self, trial_log: TrialLog, facts: SearchInfo, *, alive_for: float) -> None:
        super().__init__(trial_log.oracle)
        self._trial_log, self._facts, self._alive_for = trial_log, facts, alive_for
        self._lock = threading.RLock()
        self._heard: dict[str, tuple[str, float]] = {}  # tuner -> its process, when
        self._begun: dict[str, float] = {}  # trial -> when it was handed out
        self._deaths: Counter[str] = Counter()
        self._farewell: set[str] = set()
        #: Trials that have ended, for the chief.
        self.done: SimpleQueue[TrialResult] = SimpleQueue()
        #: Set whenever there is something for the chief to look at.
        self.changed = threading.Event()
        #: What went wrong in the oracle, for the chief to raise.
        self.error: Exception | None = None
        #: No trial is left.
        self.over = False
        #: Why the search has ended before its time.
        self.ended_because = ""

    # Calls of workers, in threads of the server.

    def CreateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802 - Keras Tuner's name
        """Return the next trial; its status is IDLE if one may follow when others have ended."""
        said = self._called(context)
        with self._oracle_at_work():
            answer = protos.get_proto().Trial(status=TrialStatus.to_proto(TrialStatus.STOPPED))
            if not self.over:
                trial = self.oracle.create_trial(said["tuner"])
                stopped = trial.status == TrialStatus.STOPPED
                self.over = stopped and not self.oracle.has_pending
                if not stopped:
                    answer = _message(trial)
                    self._begun[trial.trial_id] = time.monotonic()
                elif not self.over:  # one of those under way may come back
                    answer.status = TrialStatus.to_proto(TrialStatus.IDLE)
            if self.over:
                self._farewell.add(said["tuner"])
                self.changed.set()
            context.set_trailing_metadata(
                pack_metadata(
                    parent=self._facts.parent,
                    mark=self._facts.mark,
                    said=self._trial_log.format_progress_prefix(),
                )
            )
        return protos.get_service().CreateTrialResponse(trial=answer)

    def GetTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a trial; the call also shows that the trial's worker is alive."""
        said = self._called(context)
        with self._oracle_at_work():
            if said.get("has_it") and not self._has(said["tuner"], request.trial_id):
                context.abort(
                    import_grpc().StatusCode.ABORTED, "The trial has been given to another."
                )
            answer = _message(self.oracle.get_trial(request.trial_id))
        return protos.get_service().GetTrialResponse(trial=answer)

    def EndTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Record a trial's result; if its worker leaves, queue the trial for another worker."""
        said = self._called(context)
        with self._oracle_at_work():
            tuner, trial_id = said["tuner"], request.trial.trial_id
            if said.get("leaves"):
                self._heard.pop(tuner, None)
                self.oracle.requeue(tuner)
            elif self._has(tuner, trial_id):
                trial = self.oracle.get_trial(trial_id)
                if said["score"] is not None:
                    self.oracle.update_trial(trial_id, {self.oracle.objective.name: said["score"]})
                self._end(trial, failed=said["reason"], unsent=said["unsent"])
        return protos.get_service().EndTrialResponse()

    # Calls of the chief, in its own thread.

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody calls the oracle while the block lasts."""
        with self._lock:
            yield

    def left(self) -> bool:
        """Whether there is a trial to be trained, or one under way."""
        with self._oracle_at_work():
            if not self.oracle.has_pending:
                trial = self.oracle.create_trial("chief")
                self.over = trial.status == TrialStatus.STOPPED
                self.oracle.requeue("chief")
            return not self.over

    def lose(self, tuner: str, why: str) -> bool:
        """Put the trial of a worker that is no more before those to come.

        A trial that takes one worker after the other with it fails instead.

        Args:
            tuner: the worker.
            why: it is no more.

        Returns:
            Whether it had a trial.
        """
        with self._oracle_at_work():
            self._heard.pop(tuner, None)
            trial = self.oracle.ongoing_trials.get(tuner)
            if trial is None:
                return False
            self._deaths[trial.trial_id] += 1
            if self._deaths[trial.trial_id] < MOST_DEATHS:
                self.oracle.requeue(tuner)
            else:
                self._end(trial, failed=f"{MOST_DEATHS} workers ended with it: {why}")
            return True

    def silent(self) -> list[str]:
        """Workers that have a trial and were not heard for too long."""
        oldest = time.monotonic() - self._alive_for
        with self._lock:
            return [
                tuner
                for tuner in self.oracle.ongoing_trials
                if tuner in self._heard and self._heard[tuner][1] < oldest
            ]

    def forget(self, tuner: str) -> None:
        """Expect to hear no more of a worker."""
        with self._lock:
            self._heard.pop(tuner, None)

    def told(self) -> bool:
        """Whether all workers that live know that the search is over."""
        oldest = time.monotonic() - self._alive_for / 2
        with self._lock:
            living = {tuner for tuner, (_, when) in self._heard.items() if when >= oldest}
            return living <= self._farewell

    def _end(self, trial: Any, *, failed: str, unsent: bool = False) -> None:
        trial.status = TrialStatus.INVALID if failed else TrialStatus.COMPLETED
        trial.message = failed or None
        self.oracle.end_trial(trial)
        seconds = time.monotonic() - self._begun.get(trial.trial_id, time.monotonic())
        self.done.put(TrialResult(trial.trial_id, seconds, unsent))
        self.changed.set()

    def _has(self, tuner: str, trial_id: str) -> bool:
        """Whether a trial is a worker's, also where the chief was killed and started since."""
        trial = self.oracle.ongoing_trials.get(tuner)
        if trial is None:
            return bool(self.oracle.reassign(tuner, trial_id))
        return bool(trial.trial_id == trial_id)

    def _called(self, context: Any) -> dict[str, Any]:
        """Who calls; refuse whoever is none of this search's workers, or calls too late."""
        said, code = unpack_metadata(context.invocation_metadata()), import_grpc().StatusCode
        if said.get("sweep") != self._facts.sweep:
            context.abort(
                code.FAILED_PRECONDITION,
                f"The chief searches something else ({self._facts.sweep}, not "
                f"{said.get('sweep')}): expected the same command, configuration, images and "
                "version of the lab on all machines.",
            )
        if self.error is not None or self.ended_because:
            self._heard.pop(said["tuner"], None)
            context.abort(code.ABORTED, f"The search has ended: {self.ended_because or self.error}")
        with self._lock:
            now, process = time.monotonic(), said["process"]
            other, heard = self._heard.get(said["tuner"], (process, now))
            if other != process and now - heard < self._alive_for / 4:
                context.abort(
                    code.ALREADY_EXISTS,
                    f"{said['tuner']}: {other} is a worker of this name; give each another. (One "
                    f"that was killed may be started again {self._alive_for / 4:.0f} s later.)",
                )
            self._heard[said["tuner"]] = process, now
        return said

    @contextmanager
    def _oracle_at_work(self) -> Iterator[None]:
        """One call at a time; what goes wrong ends the search, for the oracle is then unusable."""
        with self._lock:
            try:
                yield
            except Exception as error:
                if type(error) is not Exception:  # context.abort raises a bare one
                    self.error = error
                    self.changed.set()
                raise


def _message(trial: Any) -> Any:
    """Convert a trial to a message with its values, without the space, which the worker has.

    For a message with the space, Keras Tuner would print each of its conditions.
    """
    values = HyperParameters()
    values.values = dict(trial.hyperparameters.values)
    return Trial(values, trial.trial_id, trial.status).to_proto()
