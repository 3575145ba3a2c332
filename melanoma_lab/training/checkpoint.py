"""Checkpoints on disk, from which an interrupted fit resumes with exactly the same result.

A checkpoint is a plain ``.npz`` file without pickles. It is written under a temporary name, synced
to the disk and renamed, so that it is never incomplete. Its name contains the checksum of its
content, so that later damage is detected. The two newest checkpoints are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.files import DamagedFileError, compute_crc32, write_atomically

#: How long training may wait for checkpoints in total: so many seconds, plus this share of its
#: time. If epochs are very short or the disk is very slow, some epochs get no checkpoint instead.
ALLOWANCE, SHARE = 2.0, 0.01
#: The member of the file that holds all values except arrays, as JSON.
FACTS = "facts"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit after a whole epoch.

    Attributes:
        epoch: number of epochs done.
        arrays: variables and other arrays, by name.
        facts: all other values, by name; JSON, with NaN allowed.
    """

    epoch: int
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint into a folder atomically.

    Args:
        folder: folder, which is created if it does not exist.


    Raises:
        OSError: the file cannot be written; no part of it is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.dumps({"epoch": checkpoint.epoch, **checkpoint.facts}).encode()
    members = {FACTS: np.frombuffer(facts, np.uint8), **checkpoint.arrays}
    unnamed = folder / "newest.npz"
    with (
        write_atomically(unnamed, durable=True, partial="writing.partial") as partial,
        partial.open("wb") as file,
    ):
        np.savez(file, allow_pickle=False, **members)
    with unnamed.open("rb") as file:
        checksum = compute_crc32(file)
    return unnamed.replace(folder / f"epoch-{checkpoint.epoch:05}.{checksum:08x}.npz")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that ``write_checkpoint`` has written.

    Raises:
        DamagedFileError: the file cannot be read, or its content has changed.
    """
    try:
        with path.open("rb") as file:
            if path.suffixes[:-1] != [f".{compute_crc32(file):08x}"]:
                raise DamagedFileError(f"{path.name} is damaged")
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                arrays = dict(members)
    except OSError as error:
        raise DamagedFileError(f"{path.name} cannot be read ({error})") from error
    facts = json.loads(arrays.pop(FACTS).tobytes())
    return Checkpoint(facts.pop("epoch"), arrays, facts)


class CheckpointManager:
    """Loads and saves the checkpoints of one run; a context manager that waits for the last save.

    A thread of its own writes them while training continues. If a checkpoint cannot be written, the
    user is warned and training continues.

    Args:
        final: whether the last epoch's checkpoint is always saved, even if training has to wait.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, final: bool = False) -> None:
        self._folder, self._say, self._final = folder, say, final
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._started = time.perf_counter()
        self._waited = 0.0
        self._failed = False
        self._saved_epoch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finish_writing()
        self._pool.shutdown()
        if kind is KeyboardInterrupt and self._saved_epoch:
            self._say(f"Interrupted; the same command resumes from epoch {self._saved_epoch + 1}.")

    def load_newest(self) -> Checkpoint | None:
        """Load the newest intact checkpoint, or None; delete damaged ones."""
        for path in self._paths():
            try:
                checkpoint = read_checkpoint(path)
            except DamagedFileError as error:
                self._say(f"A checkpoint of this run was ignored: {error}.")
                path.unlink(missing_ok=True)
            else:
                self._saved_epoch = checkpoint.epoch
                return checkpoint
        return None

    def save_if_affordable(self, take: Callable[[], Checkpoint], *, last: bool = False) -> None:
        """Save the current state, unless training has already waited too long for checkpoints.

        Args:
            take: function that copies the state; the copy must not change while training continues.
        """
        now = time.perf_counter()
        required = last and self._final
        if not required and self._waited > ALLOWANCE + SHARE * (now - self._started):
            return
        self._finish_writing()
        self._writing = self._pool.submit(self._write, take())
        self._waited += time.perf_counter() - now

    def _write(self, checkpoint: Checkpoint) -> None:
        newest = write_checkpoint(checkpoint, self._folder)
        self._saved_epoch = checkpoint.epoch
        for old in [path for path in self._paths() if path != newest][1:]:
            old.unlink(missing_ok=True)

    def _finish_writing(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except OSError as error:
            if not self._failed:  # do not repeat the warning after every epoch
                self._say(
                    f"A checkpoint could not be written ({error}). Training continues; if it is "
                    "killed, it will resume from an earlier epoch."
                )
            self._failed = True
        else:
            self._failed = False

    def _paths(self) -> list[Path]:
        """List the folder's checkpoints, the newest first."""
        return sorted(self._folder.glob("epoch-*.npz"), reverse=True)
