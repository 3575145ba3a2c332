"""Jobs on Hydra's launchers: the status of all of them, and those that run here at the same time.

Each job writes its status to a file, and the command reads them at the end. Files are used because
a launcher may run jobs in other processes or on other machines. They are in a hidden folder below
the current folder of the command, like Hydra's own output, so that all machines of a cluster can
access them.

Jobs that run at the same time on this machine, each in its own process, share the processor, and
their lines of output are marked with their numbers. They end with the command: on Ctrl-C or SIGTERM
it asks each of them to stop, and a process whose command has died stops by itself.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO, cast

from hydra.core.hydra_config import HydraConfig

from melanoma_lab.core.console import console
from melanoma_lab.core.files import replace_file
from melanoma_lab.training.hardware import count_available_threads


@dataclass(frozen=True)
class JobStatus:
    """The status of one job: what it is, and whether it failed.

    Attributes:
        uri: tracking URI of its run; empty if the run is stored offline, to be sent later.
        failure: exit status that the job would have had as a single run; 0 if it succeeded.
        reason: reason of the failure; empty if it succeeded.
    """

    number: int
    arm: str
    repetition: str
    task: str
    study: str
    metric: str
    uri: str
    failure: int
    reason: str


@dataclass
class JobStatusStore:
    """Stores the status of a command's jobs in files; jobs in other processes have a copy of it.

    Attributes:
        folder: folder of the files, created with the first one.
        jobs: jobs of a multirun in order, filled in after all have ended.
        broken: why jobs are missing if the launcher failed; otherwise empty.
    """

    folder: Path
    process: int
    error: Exception | None = None
    jobs: tuple[JobStatus, ...] = ()
    broken: str = ""

    def begin(self, job: JobStatus, *, stoppable: int = 0) -> None:
        """Store the status that a job has if its process dies before the job ends.

        Args:
            stoppable: id of the job's process on this machine if SIGTERM stops the job; otherwise
                0.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(job, stoppable)

    def end(self, job: JobStatus) -> None:
        """Store the final status of a job; do nothing if the command has already ended."""
        with suppress(FileNotFoundError):
            self._write(job, 0)

    def _write(self, job: JobStatus, stoppable: int) -> None:
        path = self.folder / f"{job.number}.json"
        replace_file(path, json.dumps({"job": asdict(job), "stoppable": stoppable}))

    def read(self) -> tuple[JobStatus, ...]:
        """Read the status of all jobs that have begun, in order."""
        jobs = [JobStatus(**content["job"]) for content in self._read_files()]
        return tuple(sorted(jobs, key=lambda job: job.number))

    def stoppable(self) -> set[int]:
        """Return the ids of this machine's processes that run a job now and stop it on SIGTERM."""
        return {content["stoppable"] for content in self._read_files()} - {0}

    def _read_files(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*.json")]


@contextmanager
def collect_jobs() -> Iterator[JobStatusStore]:
    """Collect the status of the jobs that run in this context.

    Jobs do not raise exceptions: an exception after the first job has begun is the launcher's.

    Yields:
        The store. Its ``error`` is filled in by a single run, and ``jobs`` and ``broken`` at the
        end of the context.
    """
    folder = Path("experiments", f".jobs-{uuid.uuid4().hex}").absolute()
    store = JobStatusStore(folder, os.getpid())
    try:
        yield store
        store.jobs = store.read()
    except Exception as error:
        store.jobs = store.read()
        if not store.jobs:
            raise
        store.broken = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # it contains reports
            folder.parent.rmdir()


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
    # -1: one for every processor, -2: one fewer
    return max(1, count_available_threads() + 1 + n_jobs)


class PrefixedLines(io.TextIOBase):
    """A stream that writes complete lines with a prefix; lines of one call stay together."""

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
