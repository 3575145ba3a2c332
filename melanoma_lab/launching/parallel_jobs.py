"""Jobs of one command that run at the same time on this machine, each in its own process.

They share the processor, and their lines of output are marked with their numbers. They end with the
command: on Ctrl-C or SIGTERM it asks each of them to stop, and a process whose command has died
stops by itself.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, TextIO, cast

from hydra.core.hydra_config import HydraConfig

from melanoma_lab.core.console import console
from melanoma_lab.launching.job_status import JobStatusStore
from melanoma_lab.training.hardware import count_available_threads

#: Seconds that a job has to mark its run as KILLED before its process exits.
GRACE = 20.0


def count_parallel_jobs() -> int:
    """Return how many jobs of this command run at once here; 1 unless joblib runs them."""
    if not HydraConfig.initialized():
        return 1
    launcher = HydraConfig.get().launcher
    if not str(launcher.get("_target_", "")).endswith(".JoblibLauncher"):
        return 1
    n_jobs = int(launcher.n_jobs)
    if n_jobs > 0:
        return n_jobs
    return max(
        1, count_available_threads() + 1 + n_jobs
    )  # -1: one for every processor, -2: one fewer


class PrefixedLines(io.TextIOBase):
    """A stream that writes complete lines with a prefix; lines of one call stay together.

    Args:
        stream: stream to write to.
        prefix: text before each line.
    """

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream, self._prefix, self._incomplete = stream, prefix, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the underlying stream, by which Rich chooses characters for boxes."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write all complete lines; keep the text after the last line break for the next call."""
        *lines, self._incomplete = (self._incomplete + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._prefix}{line}".rstrip() + "\n" for line in lines))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing: an incomplete line is not written before it ends."""


@contextmanager
def isolate_job(store: JobStatusStore, number: int) -> Iterator[int]:
    """Prepare a parallel job's process for output and interrupts; do nothing for other jobs.

    Args:
        store: status of the command's jobs.
        number: number of the job in the multirun.

    Yields:
        The id of the process that the command can stop with SIGTERM; 0 if the job runs in the
        command's own process, or is not a parallel job of this machine.
    """
    if os.getpid() == store.process or count_parallel_jobs() == 1:
        yield 0
        return
    _JOB_INTERRUPT.install(store)
    file = console.file
    # Not a terminal, so that progress bars do not overwrite each other.
    console.file = cast("IO[str]", PrefixedLines(sys.stdout, f"[{number}] "))
    try:
        with _JOB_INTERRUPT.during_job():
            yield os.getpid()
    finally:
        console.file = file


class _JobInterrupt:
    """Signal handler of a job's process, which interrupts a job once and never between jobs."""

    def __init__(self) -> None:
        self.asked = False  # core.interrupts reads it by this name
        self._in_job = False
        self._installed = False

    def install(self, store: JobStatusStore) -> None:
        """Handle SIGTERM and ignore Ctrl-C: the command gets Ctrl-C too, and sends SIGTERM."""
        if not self._installed:
            self._installed = True
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, self)
            threading.Thread(target=self._watch_parent, args=(store.process,), daemon=True).start()

    @contextmanager
    def during_job(self) -> Iterator[None]:
        """Allow interrupts in this context, and refuse to begin a job after an interrupt."""
        self._in_job = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._in_job = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.asked:  # a second signal would interrupt the handling of the first
            self.asked = True
            if self._in_job:
                raise KeyboardInterrupt

    def _watch_parent(self, parent: int) -> None:
        """Stop the job and exit if the command's process dies, for example because it is killed."""
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._in_job and time.monotonic() < deadline:
            time.sleep(0.1)
        os._exit(130)


_JOB_INTERRUPT = _JobInterrupt()


class InterruptHandler:
    """The command's handler of Ctrl-C and SIGTERM, which first stops jobs in other processes.

    A second signal interrupts the command at once.

    Args:
        store: status of the command's jobs.
    """

    def __init__(self, store: JobStatusStore) -> None:
        self._store = store
        self.asked = False  # core.interrupts reads it by this name

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Stop the jobs in other processes, then interrupt this process."""
        if not self.asked:
            self.asked = True
            self._stop_jobs()
        raise KeyboardInterrupt

    def _stop_jobs(self) -> None:
        stopped: set[int] = set()
        deadline = time.monotonic() + GRACE
        while (running := self._store.stoppable()) and time.monotonic() < deadline:
            for process in running - stopped:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            stopped |= running
            time.sleep(0.05)
