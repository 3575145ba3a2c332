"""What became of the jobs of a command, noted by each in a file for whoever asks at the end.

Files, because a launcher may run jobs in processes of their own, or on other machines. They lie in
a hidden folder below the one where the command was typed, as what Hydra writes does, so that all
machines of a cluster reach them.
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

from melanoma_lab.core.atomic_files import replace_file


@dataclass(frozen=True)
class JobStatus:
    """What became of one job.

    Attributes:
        number: its place in the multirun.
        arm: its arm.
        repetition: its seed, and its fold where there are any.
        task: what it did.
        study: for which study.
        metric: that gives the study's verdicts.
        uri: where runs are recorded; empty where they are kept to be sent later.
        failure: the exit status that it alone would have ended with; 0 where it succeeded.
        reason: of the failure.
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
    """The notes of one command's jobs; what a job of another process has is a copy.

    Attributes:
        folder: of the files; made with the first of them.
        process: the id of the command's own process.
        error: what a single run raised, for the command to raise.
        jobs: those of a multirun, in their order, when all are through.
        broken: why jobs are missing, where the launcher gave up.
    """

    folder: Path
    process: int
    error: Exception | None = None
    jobs: tuple[JobStatus, ...] = ()
    broken: str = ""

    def begin(self, job: JobStatus, *, stoppable: int = 0) -> None:
        """Note what is to be said of a job if its process never ends it.

        Args:
            job: the job.
            stoppable: the process of this machine that it runs in, if that ends it on SIGTERM; 0
                where it does not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(job, stoppable)

    def end(self, job: JobStatus) -> None:
        """Note what has become of a job; of no interest where the command ended before it did."""
        with suppress(FileNotFoundError):
            self._write(job, 0)

    def _write(self, job: JobStatus, stoppable: int) -> None:
        path = self.folder / f"{job.number}.json"
        replace_file(path, json.dumps({"job": asdict(job), "stoppable": stoppable}))

    def read(self) -> tuple[JobStatus, ...]:
        """What has become of the jobs that have begun, in their order."""
        jobs = [JobStatus(**note["job"]) for note in self._contents()]
        return tuple(sorted(jobs, key=lambda job: job.number))

    def stoppable(self) -> set[int]:
        """Processes of this machine that a job runs in now, and that end it on SIGTERM."""
        return {note["stoppable"] for note in self._contents()} - {0}

    def _contents(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*.json")]


@contextmanager
def collect_jobs() -> Iterator[JobStatusStore]:
    """Collect what becomes of the jobs that run in the block.

    Jobs do not raise; what comes out of the block after the first has begun is the launcher's.

    Yields:
        The notes; ``error``, ``jobs`` and ``broken`` are filled in when the block is through.
    """
    folder = Path("experiments", f".jobs-{uuid.uuid4().hex}").absolute()
    notes = JobStatusStore(folder, os.getpid())
    try:
        yield notes
        notes.jobs = notes.read()
    except Exception as error:
        notes.jobs = notes.read()
        if not notes.jobs:
            raise
        notes.broken = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # somebody's reports lie there
            folder.parent.rmdir()
