"""A worker of a search: trains the trials that a chief hands out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_client import OracleClient
from keras_tuner.src.engine.trial import Trial, TrialStatus

from melanoma_lab.config.schema.tuner import Tuner
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.locks import get_process_id
from melanoma_lab.tuning.distributed.chief import find_cache_mark
from melanoma_lab.tuning.distributed.heartbeat import PAUSE, Heartbeat
from melanoma_lab.tuning.distributed.transport import import_grpc, pack_metadata, unpack_metadata
from melanoma_lab.tuning.plan import Proposal
from melanoma_lab.tuning.search import LabTuner, read_proposal
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.trial_runner import TrialRunner

#: Seconds that a call may take until it is repeated.
CALL = 30.0


class ChiefClient(OracleClient):
    """Keras Tuner's client, with exact scores, reasons, and an end to its patience.

    Args:
        oracle: one that the search's command builds; what it searches is looked up there.
        channel: to the chief.
        sweep: the search's fingerprint.
        patience: seconds for which the chief may not answer.
    """

    def __init__(self, oracle: Any, channel: Any, *, sweep: str, patience: float) -> None:
        super().__init__(oracle)
        self.stub = protos.get_service_grpc().OracleStub(channel)
        self._patience, self._sweep = patience, sweep
        self._process = get_process_id()
        self._answered = time.monotonic()
        #: What the chief said with the last trial: ``parent``, ``mark``, ``said``.
        self.told: dict[str, Any] = {}

    def create_trial(self, tuner_id: str) -> Any:
        """Wait for the next trial and return it; its status says if the search is over."""
        request = protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        while True:
            response, self.told = self._ask(self.stub.CreateTrial, request)
            trial = Trial.from_proto(response.trial)
            if trial.status != TrialStatus.IDLE:
                return trial
            time.sleep(PAUSE)

    def get_trial(self, trial_id: str) -> Any:
        """Return a trial by its id, as the chief has it."""
        request = protos.get_service().GetTrialRequest(trial_id=trial_id)
        return Trial.from_proto(self._ask(self.stub.GetTrial, request)[0].trial)

    def end_trial(self, trial: Any, *, score: float | None = None, unsent: bool = False) -> None:
        """Give back what came of a trial.

        Args:
            trial: with its status, and its message where it failed.
            score: that it got; None where it failed.
            unsent: some of its runs wait on this disk to be sent.
        """
        request = protos.get_service().EndTrialRequest(trial=trial.to_proto())
        self._ask(
            self.stub.EndTrial, request, score=score, reason=trial.message or "", unsent=unsent
        )

    def leave(self) -> None:
        """Tell the chief, if it still answers, that this worker ends, and its trial does not."""
        request = protos.get_service().EndTrialRequest()
        with suppress(import_grpc().RpcError):
            self.stub.EndTrial(request, timeout=PAUSE, metadata=self._facts(leaves=True))

    def show_life(self, trial_id: str) -> None:
        """Tell the chief, once, that this worker has its trial.

        Raises:
            UserError, RunError: as ``create_trial`` does.
        """
        request = protos.get_service().GetTrialRequest(trial_id=trial_id)
        try:
            self.stub.GetTrial(request, timeout=CALL, metadata=self._facts(has_it=True))
            self._answered = time.monotonic()
        except import_grpc().RpcError as error:
            self._refuse(error)

    def _ask(self, call: Any, request: Any, **facts: Any) -> tuple[Any, dict[str, Any]]:
        """Call the chief, again and again while it does not answer."""
        while True:
            try:
                response, done = call.with_call(
                    request, timeout=CALL, metadata=self._facts(**facts)
                )
            except import_grpc().RpcError as error:
                self._refuse(error)
                time.sleep(PAUSE)
            else:
                self._answered = time.monotonic()
                return response, unpack_metadata(done.trailing_metadata())

    def _facts(self, **more: Any) -> Any:
        return pack_metadata(tuner=self.tuner_id, process=self._process, sweep=self._sweep, **more)

    def _refuse(self, error: Any) -> None:
        """Say what a call that failed means, unless it may be repeated."""
        code = import_grpc().StatusCode
        if error.code() in {code.FAILED_PRECONDITION, code.ALREADY_EXISTS}:
            raise UserError(error.details()) from error
        if error.code() not in {code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.CANCELLED}:
            raise RunError(f"The chief: {error.details()}") from error
        if time.monotonic() - self._answered > self._patience:
            raise RunError(
                f"The chief has not answered for {self._patience:g} s. Start it again by the same "
                "command, and the workers: trials go on from their last epoch."
            ) from error


class Worker(LabTuner):
    """Keras Tuner's loop over the trials of a chief.

    Args:
        oracle: one that the search's command builds.
        client: of the chief.
        searched: the checked space.
        tuner: the group's chosen option.
        trials: trains them.
        lifeline: shows the chief that this process lives.
        folder: that Keras Tuner asks for; nothing is put there.
    """

    def __init__(
        self,
        oracle: Any,
        client: ChiefClient,
        *,
        searched: Sequence[HyperParameter],
        tuner: Tuner,
        trials: TrialRunner,
        lifeline: Heartbeat,
        folder: Path,
    ) -> None:
        super().__init__(oracle, folder=folder)
        self.oracle, self._lifeline = client, lifeline
        self._searched, self._tuner, self._trials = searched, tuner, trials
        self._proposal: Proposal
        #: Trials that were trained here; those of them whose runs wait to be sent.
        self.count, self.unsent = 0, 0

    def on_trial_begin(self, trial: Any) -> None:
        """Look up what is to be trained."""
        super().on_trial_begin(trial)
        self._lifeline.begin(trial.trial_id)
        self._proposal = read_proposal(trial, self._tuner, self._searched, self.oracle.get_trial)
        if not self._trials.parent:
            self._trials.parent = self._parent()

    def _run_and_update_trial(self, *_: Any, **__: Any) -> None:
        self.trial_score = self._trials.run(self._proposal, self.oracle.told["said"])

    def on_trial_end(self, trial: Any) -> None:
        """Give the score back, or the reason."""
        score = None if self.trial_score is None else self.trial_score.score
        unsent = self.trial_score is not None and self.trial_score.unsent
        self._lifeline.end()
        self.oracle.end_trial(trial, score=score, unsent=unsent)
        self.count, self.unsent = self.count + 1, self.unsent + unsent

    def on_search_end(self) -> None:
        """Delete the states of the trials, unless they lie in the chief's cache, who minds them."""
        with suppress(OSError):
            says = find_cache_mark(self._trials.cache, self._trials.sweep).read_text(
                encoding="utf-8"
            )
            if says == self.oracle.told["mark"]:
                return
        for lock in self._trials.run_locks.values():
            lock.delete_checkpoints()

    def _parent(self) -> str:
        """Return the id of the search's MLflow run, which the chief has opened.

        Raises:
            UserError: this worker's tracking server does not have the run.
        """
        from mlflow.exceptions import MlflowException

        run_id = str(self.oracle.told["parent"])
        if self._trials.tracker.client is not None:
            try:
                self._trials.tracker.client.get_run(run_id)
            except MlflowException as error:
                raise UserError(
                    "tracking.uri: the chief's search is not there; expected the same tracking "
                    "server of the chief and all workers."
                ) from error
        return run_id
