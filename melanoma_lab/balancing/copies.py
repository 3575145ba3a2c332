"""Augmented copies on disk: made once, by several threads, and memory-mapped by every later run.

Threads suffice: Pillow lets go of the interpreter's lock while it works on pixels, and every thread
has random numbers of its own (see ``operations``). Processes were tried: starting them took longer
than they saved.
"""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.balancing.operations import (
    OperationSpec,
    augmented_copy,
    build_operations,
    quiet_augmentor,
)
from melanoma_lab.errors import RunError
from melanoma_lab.progress import Progress

#: Copies made and written at a time: a few hundredths of a second of work, a few MB.
CHUNK = 16


def open_copies(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Memory-map finished copies.

    Args:
        path: a ``.npy`` file, or where one may come to lie.
        shape: (copies, height, width, 3).

    Returns:
        uint8 array of that shape, read only; None where the file is missing, cut short or not
        what was expected.
    """
    try:
        copies = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if copies.shape != shape or copies.dtype != np.uint8:
        return None
    return cast("NDArray[np.uint8]", copies)


def make_copies(
    path: Path,
    originals: NDArray[np.uint8],
    rows: NDArray[np.int64],
    seeds: tuple[int, ...],
    operations: tuple[OperationSpec, ...],
    *,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Make the copies and put them where ``open_copies`` finds them.

    The file appears whole or not at all, and two processes may make the same one at once: each
    writes a file of its own and renames it. What a copy holds does not depend on the workers.

    Args:
        path: the ``.npy`` file to make.
        originals: uint8, shape (images, height, width, 3).
        rows: int64, shape (m,), m at least 1; the original of each copy.
        seeds: m seeds.
        operations: checked specifications.
        workers: threads to use, at least 1.
        progress: told after every few copies.

    Raises:
        RunError: the file cannot be written.
    """
    if workers < 1:
        raise ValueError(f"Expected at least 1 worker. Received {workers}")
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_all(partial, originals, rows, seeds, operations, workers=workers, progress=progress)
        partial.replace(path)
    except OSError as error:
        raise RunError(f"The balanced copies could not be written to {path}: {error}") from error
    finally:
        with suppress(OSError):  # it was renamed, or never made
            partial.unlink()


def _write_all(
    path: Path,
    originals: NDArray[np.uint8],
    rows: NDArray[np.int64],
    seeds: tuple[int, ...],
    operations: tuple[OperationSpec, ...],
    *,
    workers: int,
    progress: Progress | None,
) -> None:
    """Make every copy and write it to its place in a new ``.npy`` file."""
    shape = (len(rows), *originals.shape[1:])
    # Only the header is written through the map. The pixels are written plainly: on a full disk
    # that raises, where writing to a map would end the process with a bus error.
    offset = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).offset
    built = build_operations(operations)
    pixels = np.asarray(originals)

    def write(chunk: range) -> int:
        block = np.stack([augmented_copy(pixels[rows[i]], built, seeds[i]) for i in chunk])
        with path.open("r+b") as file:
            file.seek(offset + chunk.start * block[0].nbytes)
            file.write(block.data)
        return len(chunk)

    chunks = [range(i, min(i + CHUNK, len(rows))) for i in range(0, len(rows), CHUNK)]
    with quiet_augmentor(), ThreadPoolExecutor(workers) as threads:
        written = [threads.submit(write, chunk) for chunk in chunks]
        done = 0
        try:
            for future in as_completed(written):
                done += future.result()
                if progress is not None:
                    progress(done, len(rows))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    # The pixels reach the disk before the name does: a power cut must not leave zeros under it.
    with path.open("r+b") as file:
        os.fsync(file.fileno())
