"""Checkpoints on disk: all that a fit needs to go on after an epoch as if nothing had happened.

A checkpoint is a plain ``.npz`` file without pickles. It is written beside its place, forced to the
disk and renamed, so it is there whole or not at all, and its name holds the checksum of its
content, so that a file which was damaged later is noticed. The two newest are kept.
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

from melanoma_lab.core.atomic_files import write_atomically
from melanoma_lab.core.checksums import DamagedFileError, compute_crc32

#: What training may wait for checkpoints: so many seconds in all, and this share of its time.
#: Where epochs are very short, or the disk very slow, an epoch goes without one instead.
ALLOWANCE, SHARE = 2.0, 0.01
#: The member of the file that holds everything but arrays, as JSON.
FACTS = "facts"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit after a whole epoch.

    Attributes:
        epoch: epochs done.
        arrays: variables and the like, by name.
        facts: everything else; what JSON can hold, NaN included.
    """

    epoch: int
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Put a checkpoint into a folder: whole, or not at all.

    Args:
        checkpoint: what to keep.
        folder: made where it does not exist.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written; nothing of it is left behind.
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
    """Read what ``write_checkpoint`` wrote.

    Raises:
        DamagedFileError: the content is not what was written.
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
    """The checkpoints of one run; closes, as a context manager, when the last one is written.

    They are written in a thread of their own while training goes on. A checkpoint that cannot be
    written costs a warning, not the run.

    Args:
        folder: the run's own.
        say: told, in a sentence, what a user should know.
        final: the last epoch's is wanted, however long training waits for it.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, final: bool = False) -> None:
        self._folder, self._say, self._final = folder, say, final
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._started = time.perf_counter()
        self._waited = 0.0
        self._failed = False
        self._kept = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finish_writing()
        self._pool.shutdown()
        if kind is KeyboardInterrupt and self._kept:
            self._say(f"Interrupted; the same command goes on from epoch {self._kept + 1}.")

    def load_newest(self) -> Checkpoint | None:
        """The newest checkpoint that is as it was written; damaged ones are removed."""
        for path in self._paths():
            try:
                checkpoint = read_checkpoint(path)
            except DamagedFileError as error:
                self._say(f"A checkpoint of this run is not used: {error}.")
                path.unlink(missing_ok=True)
            else:
                self._kept = checkpoint.epoch
                return checkpoint
        return None

    def save_if_affordable(self, take: Callable[[], Checkpoint], *, last: bool = False) -> None:
        """Keep the state of this moment, if training has not waited too long for such already.

        Args:
            take: makes a checkpoint that shares no memory with what training goes on to change.
            last: it is the state after the last epoch.
        """
        now = time.perf_counter()
        wanted = last and self._final
        if not wanted and self._waited > ALLOWANCE + SHARE * (now - self._started):
            return
        self._finish_writing()
        self._writing = self._pool.submit(self._write, take())
        self._waited += time.perf_counter() - now

    def _write(self, checkpoint: Checkpoint) -> None:
        newest = write_checkpoint(checkpoint, self._folder)
        self._kept = checkpoint.epoch
        for old in [path for path in self._paths() if path != newest][1:]:
            old.unlink(missing_ok=True)

    def _finish_writing(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except OSError as error:
            if not self._failed:  # a full disk is no news at the next epoch
                self._say(
                    f"A checkpoint could not be written ({error}). Training goes on; were it "
                    "killed, it would be continued from an earlier epoch."
                )
            self._failed = True
        else:
            self._failed = False

    def _paths(self) -> list[Path]:
        """The folder's checkpoints, the newest first."""
        return sorted(self._folder.glob("epoch-*.npz"), reverse=True)
