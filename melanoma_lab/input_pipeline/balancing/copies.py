"""Augmented copies on disk: made once, by several threads, and memory-mapped by every later run.

Threads suffice: Pillow lets go of the interpreter's lock while it works on pixels, and every thread
has random numbers of its own (see ``operations``). Processes were tried: starting them took longer
than they saved.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.checksummed_files import ArrayFile, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.input_pipeline.balancing.augmentor_operations import (
    OperationSpec,
    augment_image,
    build_operations,
    silence_augmentor,
)

#: Copies made and written at a time: a few hundredths of a second of work, a few MB.
CHUNK = 16


def make_copies(
    path: Path,
    originals: NDArray[np.uint8],
    rows: NDArray[np.int64],
    seeds: tuple[int, ...],
    operations: tuple[OperationSpec, ...],
    *,
    workers: int,
    progress: ProgressCallback | None = None,
) -> None:
    """Make the copies and put them where ``open_array`` finds them.

    The file appears whole or not at all, and two processes may make the same one at once. What a
    copy holds does not depend on the workers.

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
    with write_array(path, (len(rows), *originals.shape[1:])) as file:
        _write_all(file, originals, rows, seeds, operations, workers=workers, progress=progress)


def _write_all(
    file: ArrayFile,
    originals: NDArray[np.uint8],
    rows: NDArray[np.int64],
    seeds: tuple[int, ...],
    operations: tuple[OperationSpec, ...],
    *,
    workers: int,
    progress: ProgressCallback | None,
) -> None:
    """Make every copy and write it to its place."""
    built = build_operations(operations)
    pixels = np.asarray(originals)

    def write(chunk: range) -> int:
        block = np.stack([augment_image(pixels[rows[i]], built, seeds[i]) for i in chunk])
        file.write(chunk.start, block)
        return len(chunk)

    chunks = [range(i, min(i + CHUNK, len(rows))) for i in range(0, len(rows), CHUNK)]
    with silence_augmentor(), ThreadPoolExecutor(workers) as threads:
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
