"""Make augmented copies with several threads, and write them to the cache for later runs.

Threads are sufficient: Pillow releases the interpreter's lock while it works on pixels, and every
thread has its own random numbers (see ``augmentor_operations``). Processes were tried, but starting
them took longer than they saved.
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

#: Number of copies made and written at a time: some hundredths of a second, some megabytes.
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
    """Make augmented copies and write them to an array file that ``open_array`` can read.

    The file is written atomically, and two processes may write the same one at the same time. The
    copies do not depend on the number of workers.

    Args:
        path: path of the ``.npy`` file to write.
        originals: uint8, shape (images, height, width, 3).
        rows: int64, shape (m,), m at least 1: row in ``originals`` of each copy's original.
        seeds: m seeds, one for each copy.
        operations: checked operations.
        workers: number of threads, at least 1.
        progress: called with (done, total) after every few copies.

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
    """Make all copies and write each to its position in the file."""
    built = build_operations(operations)
    pixels = np.asarray(originals)

    def write(chunk: range) -> int:
        block = np.stack([augment_image(pixels[rows[i]], built, seeds[i]) for i in chunk])
        file.write(chunk.start, block)
        return len(chunk)

    chunks = [range(i, min(i + CHUNK, len(rows))) for i in range(0, len(rows), CHUNK)]
    with silence_augmentor(), ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(write, chunk) for chunk in chunks]
        done = 0
        try:
            for future in as_completed(futures):
                done += future.result()
                if progress is not None:
                    progress(done, len(rows))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
