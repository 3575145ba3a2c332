"""Jobs of one command that run at once on this machine, each in a process of its own.

They share the processor, what they show is told apart, and they end with the command: on Ctrl-C or
SIGTERM it asks each of them to stop, and a process that has lost it stops by itself.
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
from melanoma_lab.training.backend import count_available_threads

#: Seconds that a job has to mark its run as KILLED before its process is ended.
GRACE = 20.0


def count_parallel_jobs() -> int:
    """How many jobs of this command run at once on this machine; 1 where nobody says."""
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
    """A stream that passes on whole lines, marked; those of one call stay together.

    Args:
        stream: where they go.
        prefix: what stands before each.
    """

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream, self._prefix, self._begun = stream, prefix, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind, by which Rich chooses its boxes."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Take text; what follows its last line break waits for the next."""
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._prefix}{line}".rstrip() + "\n" for line in lines))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing: a line that has begun is not shown before it ends."""


@contextmanager
def isolate_job(notes: JobStatusStore, number: int) -> Iterator[int]:
    """Run a job of the block as one of several processes, where this is one.

    Args:
        notes: the command's.
        number: the job's place in the multirun.

    Yields:
        The process by which the command can stop the job; 0 where this is the command's own, or
        not for it to stop.
    """
    if os.getpid() == notes.process or count_parallel_jobs() == 1:
        yield 0
        return
    _STOP.prepare(notes)
    file = console.file
    # No terminal, so that no progress bar is drawn over another.
    console.file = cast("IO[str]", PrefixedLines(sys.stdout, f"[{number}] "))
    try:
        with _STOP.heeded():
            yield os.getpid()
    finally:
        console.file = file


class _Stop:
    """How a job's process comes to its end before its time: once, and only within a job."""

    def __init__(self) -> None:
        self.asked = False
        self._in_job = False
        self._prepared = False

    def prepare(self, notes: JobStatusStore) -> None:
        """Listen to the command alone; Ctrl-C reaches it too, and it asks everybody."""
        if not self._prepared:
            self._prepared = True
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, self)
            threading.Thread(target=self._outlive, args=(notes.process,), daemon=True).start()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """A job, which is interrupted when the command asks; none begins after that."""
        self._in_job = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._in_job = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.asked:  # a second one would cut short what the first has begun
            self.asked = True
            if self._in_job:
                raise KeyboardInterrupt

    def _outlive(self, parent: int) -> None:
        """Stop when the command was killed and cannot ask."""
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + GRACE
        while self._in_job and time.monotonic() < until:
            time.sleep(0.1)
        os._exit(130)


_STOP = _Stop()


class InterruptHandler:
    """The command's answer to Ctrl-C and SIGTERM: its jobs stop first; a second one is at once.

    Args:
        notes: the command's.
    """

    def __init__(self, notes: JobStatusStore) -> None:
        self._notes, self.asked = notes, False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Stop the jobs of other processes, then whatever is done here."""
        if not self.asked:
            self.asked = True
            self._stop_jobs()
        raise KeyboardInterrupt

    def _stop_jobs(self) -> None:
        asked: set[int] = set()
        until = time.monotonic() + GRACE
        while (running := self._notes.stoppable()) and time.monotonic() < until:
            for process in running - asked:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            asked |= running
            time.sleep(0.05)
