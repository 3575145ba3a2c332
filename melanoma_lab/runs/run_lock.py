"""The claim to a run: one process trains it at a time, and the next may go on where it ended.

A claim is a lock that a process loses with its life, and a folder in the lab's cache with the
run's checkpoints and with what it takes to know whether they may be used.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.locks import hold_lock
from melanoma_lab.core.untrusted_files import read_json

#: Days after which what an interrupted run left is deleted, if nobody has continued it.
KEPT_DAYS = 30


@dataclass(frozen=True)
class RunLock:
    """The sole right to train one run, for as long as this process holds it.

    Attributes:
        folder: of its checkpoints; it need not exist.
    """

    folder: Path

    @classmethod
    def of(cls, cache: Path, *, study: str, tracked: str, fingerprint: str) -> RunLock:
        """What ``acquire_run_lock`` yields, for who knows that nobody else is at the run."""
        key = hash_text(json.dumps([study, tracked, fingerprint]), 32)
        return cls(cache / "runs" / key)

    def read_interrupted_run(self) -> tuple[str, dict[str, str]] | None:
        """The MLflow run that an earlier process began and did not end, and its circumstances."""
        note = _read(self.folder / "run.json")
        return (note["run_id"], note["circumstances"]) if note else None

    def begin(self, run_id: str, circumstances: Mapping[str, str]) -> None:
        """Note which MLflow run is being trained, and under which circumstances."""
        _write(self.folder / "run.json", {"run_id": run_id, "circumstances": dict(circumstances)})

    def forget(self) -> None:
        """Delete what has been kept: the run is complete, or is to be trained from the start."""
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
    """Be the only process that trains a run, while the block lasts.

    Args:
        cache: the lab's cache folder.
        study: the run's study.
        tracked: where it is recorded; a file's place is absolute.
        fingerprint: what it computes.
        wait: told who is training this run, before waiting for its end; None: do not wait.

    Yields:
        The claim.

    Raises:
        RunError: another process trains this run, and nobody wants to wait.
    """
    claim = RunLock.of(cache, study=study, tracked=tracked, fingerprint=fingerprint)
    runs, key = claim.folder.parent, claim.folder.name
    runs.mkdir(parents=True, exist_ok=True)

    def refuse(holder: str) -> None:
        raise RunError(
            f"{holder} is training this run. Let it finish, or change the seed or study=."
        )

    with hold_lock(runs / f"{key}.lock", on_busy=wait or refuse):
        _tidy(runs)
        yield claim


def _tidy(runs: Path) -> None:
    """Delete what runs left that nobody has continued for long."""
    oldest = time.time() - KEPT_DAYS * 86400

    def skip(_holder: str) -> None:
        raise BlockingIOError

    for folder in [path for path in runs.iterdir() if path.is_dir()]:
        with suppress(OSError):
            if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < oldest:
                with hold_lock(folder.with_suffix(".lock"), on_busy=skip):
                    shutil.rmtree(folder)


def _write(path: Path, note: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(note))


def _read(path: Path) -> dict[str, Any] | None:
    """A note; None where there is none that can be read."""
    try:
        return read_json(path)
    except UserError:
        return None
