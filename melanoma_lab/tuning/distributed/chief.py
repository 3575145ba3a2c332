"""The chief of a search: hands out its trials, minds the workers, takes in what they found."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from keras_tuner.src import protos

from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.tuning.distributed.oracle_service import OracleService, SearchInfo
from melanoma_lab.tuning.distributed.worker_pool import DeadWorker, WorkerPool
from melanoma_lab.tuning.search import TrialLog

#: Seconds between two looks at the workers.
PAUSE = 0.5
#: Seconds that workers have to hear that the search is over, and those of this machine to end by
#: themselves after that; one that was started last may have to be asked.
FAREWELL, LAST_BREATH = 10.0, 3.0
#: Workers of this machine that may end without a trial before there is no use in another.
MOST_FUTILE = 3


class Chief:
    """A search whose trials are trained by other processes, of this machine or others.

    Args:
        trial_log: of the search.
        server: as ``transport.open_server`` gives it.
        crew: the workers of this machine, not started yet.
        parent: the search's run in MLflow.
        worker_timeout: seconds without a word after which a worker's trial goes to another.
        total: trials that there are going to be, at most.
    """

    def __init__(
        self,
        trial_log: TrialLog,
        server: Any,
        crew: WorkerPool,
        *,
        parent: str,
        worker_timeout: float,
        total: int,
    ) -> None:
        self._trial_log, self._server, self._crew = trial_log, server, crew
        self._parent, self._timeout, self._total = parent, worker_timeout, total
        self._futile = 0

    def search(self) -> None:
        """Have all trials trained that are left.

        Raises:
            TooManyFailuresError: too many trials in a row have failed.
            RunError: no worker of this machine comes up.
        """
        trials = self._trial_log.trials
        with mark_cache(trials.cache, trials.sweep) as written, self._crew:
            facts = SearchInfo(trials.sweep, self._parent, written)
            service = OracleService(self._trial_log, facts, alive_for=self._timeout)
            if not service.left():
                return
            protos.get_service_grpc().add_OracleServicer_to_server(service, self._server)
            self._server.start()
            self._crew.start()
            try:
                with show_progress("trials", line=False) as tell:
                    while not service.over:
                        service.changed.wait(PAUSE)
                        service.changed.clear()
                        self._mind(service)
                        self._take_in(service)
                        tell(len(self._trial_log.oracle.end_order), self._total)
            except BaseException as error:
                service.ended_because = str(error) or "interrupted"
                self._crew.stop()
                self._see_off(service)
                raise
            self._take_in(service)
            self._see_off(service)
            self._crew.wait(LAST_BREATH)

    def _mind(self, service: OracleService) -> None:
        """Give the trials of workers that are no more to others."""
        if service.error is not None:
            raise service.error
        for tuner in service.silent():
            why = f"no word for {self._timeout:g} s (tuner.worker_timeout)"
            self._crew.kill(tuner)
            service.lose(tuner, why)
            show_note(f"{tuner}: {why}; its trial goes to another.")
        for worker in self._crew.ended():
            if not service.over:
                self._replace(worker, service)

    def _replace(self, worker: DeadWorker, service: OracleService) -> None:
        """Start another worker in the place of one that has ended."""
        had_a_trial = service.lose(worker.name, worker.why)
        self._futile = 0 if had_a_trial else self._futile + 1
        refused = worker.status in {1, 2} and not had_a_trial  # its own words say why
        if refused or self._futile >= MOST_FUTILE:
            raise RunError(
                f"{worker.name}: {worker.why}, without a trial. The last of what it printed "
                f"({self._crew.log(worker.name)}):\n{self._crew.last_words(worker.name)}"
            )
        show_note(
            f"{worker.name}: {worker.why}; it is started again"
            + (", and its trial goes on from its last epoch." if had_a_trial else ".")
        )
        self._trial_log.trials.tracker.reconcile()  # its run is not RUNNING any more
        self._crew.start_again(worker.name)

    def _take_in(self, service: OracleService) -> None:
        while True:
            try:
                done = service.done.get_nowait()
            except Empty:
                return
            self._futile = 0
            with service.held():
                self._trial_log.record_end(done.trial_id, seconds=done.seconds, unsent=done.unsent)

    def _see_off(self, service: OracleService) -> None:
        """Let workers hear that the search is over."""
        until = time.monotonic() + FAREWELL
        while not service.told() and time.monotonic() < until:
            for worker in self._crew.ended():
                service.forget(worker.name)
            time.sleep(0.1)


@contextmanager
def mark_cache(cache: Path, sweep: str) -> Iterator[str]:
    """Put a mark into the cache, by which a worker knows whether its own is the same folder.

    Args:
        cache: the chief's cache folder.
        sweep: the search's fingerprint.

    Yields:
        What the mark says.
    """
    path = find_cache_mark(cache, sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    says = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
    path.write_text(says, encoding="utf-8")
    try:
        yield says
    finally:
        path.unlink(missing_ok=True)


def find_cache_mark(cache: Path, sweep: str) -> Path:
    """Where a chief's mark is."""
    return cache / "runs" / f"{sweep}.chief"
