"""The status of a command's jobs, which each job writes to a file and the command reads at the end.

Files are used because a launcher may run jobs in other processes or on other machines. They are in
a hidden folder below the current folder of the command, like Hydra's own output, so that all
machines of a cluster can access them.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.core.files import replace_file


@dataclass(frozen=True)
class JobStatus:
    """The status of one job: what it is, and whether it failed.

    Attributes:
        number: number of the job in the multirun.
        arm: name of its arm.
        repetition: text with its seed and, if any, its fold.
        task: command that it runs.
        study: name of its study.
        metric: metric of the study's verdicts.
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
        process: process id of the command.
        error: exception of a single run, which the command raises.
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
            job: status to store.
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
