"""The lock of a run: one process trains it at a time, and a later process can resume it.

The lock ends with its process. Its folder in the lab's cache has the run's checkpoints, and a note
of the MLflow run and the environment that they belong to.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.files import hash_text, replace_file
from melanoma_lab.core.locks import hold_lock
from melanoma_lab.core.untrusted_files import read_json

#: Days after which the checkpoints of an interrupted run are deleted, if it was not resumed.
KEPT_DAYS = 30


@dataclass(frozen=True)
class RunLock:
    """The right to train one run, which one process holds at a time.

    Attributes:
        folder: the folder of the run's checkpoints; it need not exist.
    """

    folder: Path

    @classmethod
    def for_run(cls, cache: Path, *, study: str, tracked: str, fingerprint: str) -> RunLock:
        """Return the lock without acquiring it; the caller knows that no other process holds it."""
        key = hash_text(json.dumps([study, tracked, fingerprint]), 32)
        return cls(cache / "runs" / key)

    def read_interrupted_run(self) -> tuple[str, dict[str, str]] | None:
        """Return the interrupted MLflow run's id and its environment; None: there is none."""
        try:
            note = read_json(self.folder / "run.json")
        except UserError:  # missing or damaged
            return None
        return note["run_id"], note["environment"]

    def record_run(self, run_id: str, environment: Mapping[str, str]) -> None:
        """Write down which MLflow run is being trained, and in which environment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = {"run_id": run_id, "environment": dict(environment)}
        replace_file(self.folder / "run.json", json.dumps(note))

    def delete_checkpoints(self) -> None:
        """Delete the run's checkpoints: it is complete, or must be trained from the start."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def acquire_run_lock(
    cache: Path,
    *,
    study: str,
    tracked: str,
    fingerprint: str,
    wait: Callable[[str], None] | None,
) -> Iterator[RunLock]:
    """Hold the lock of a run while the block lasts.

    Args:
        tracked: id of the tracking database, of ``locations.identify_study``.
        wait: function that is called with the name of the process that holds the lock, before
            waiting for its end; None: do not wait.

    Raises:
        RunError: Another process holds the lock, and ``wait`` is None.
    """
    lock = RunLock.for_run(cache, study=study, tracked=tracked, fingerprint=fingerprint)
    runs, key = lock.folder.parent, lock.folder.name
    runs.mkdir(parents=True, exist_ok=True)

    def refuse(holder: str) -> None:
        raise RunError(
            f"{holder} is training this run. Let it finish, or change the seed or study=."
        )

    with hold_lock(runs / f"{key}.lock", on_busy=wait or refuse):
        _delete_old_checkpoints(runs)
        yield lock


def _delete_old_checkpoints(runs: Path) -> None:
    """Delete the checkpoints of runs that were interrupted long ago and not resumed since."""
    oldest = time.time() - KEPT_DAYS * 86400

    def skip(_holder: str) -> None:
        raise BlockingIOError

    for folder in [path for path in runs.iterdir() if path.is_dir()]:
        with suppress(OSError):
            if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < oldest:
                with hold_lock(folder.with_suffix(".lock"), on_busy=skip):
                    shutil.rmtree(folder)
