"""The course project's balancing: classes of equal size, filled with copies by Augmentor."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.files import hash_text
from melanoma_lab.input_pipeline.augmentor_operations import (
    OperationSpec,
    augment_image,
    build_operations,
    check_operations,
    parse_operations,
    silence_augmentor,
)
from melanoma_lab.input_pipeline.balanced_set import (
    BalancedSet,
    TrainingSplit,
    make_generator,
)

#: Part of every cache key; raise it when the same plan would produce different copies.
BALANCING_VERSION = 1
#: Number of copies made and written at a time: some hundredths of a second, some megabytes.
CHUNK = 16


@dataclass(frozen=True, eq=False)
class CopyPlan:
    """The originals that are kept, and the original and seed of each copy.

    Attributes:
        kept: int64, shape (k,): positions in the split of the originals that are kept, ascending.
        copied: int64, shape (m,): position in the split of each copy's original.
        seeds: m seeds, one for each copy.
    """

    kept: NDArray[np.int64]
    copied: NDArray[np.int64]
    seeds: tuple[int, ...]


def plan_copies(split: TrainingSplit, per_class: int, seed: int) -> CopyPlan:
    """Plan how every class gets exactly ``per_class`` images; every class must have at least one.

    A larger class keeps a random subset. A smaller class keeps all its images and is filled up with
    copies. Their originals are taken from the class in a random order, repeatedly, so that the most
    used original has at most one copy more than the least used. (``Pipeline.sample`` of Augmentor
    draws with replacement: some originals many times, others never.) The choice for a class does
    not depend on the order of other classes' images.
    """
    kept, copied = [], []
    for index in range(split.n_classes):
        members = np.flatnonzero(split.labels == index)
        if len(members) >= per_class:
            cut = make_generator(seed, "augmentor/cut", index)
            kept.append(np.sort(cut.choice(members, per_class, replace=False)))
        else:
            kept.append(members)
            order = make_generator(seed, "augmentor/originals", index).permutation(members)
            copied.append(np.resize(order, per_class - len(members)))
    originals = np.concatenate(copied) if copied else np.empty(0, np.int64)
    return CopyPlan(
        kept=np.sort(np.concatenate(kept)),
        copied=originals,
        seeds=_copy_seeds(seed, [split.digests[position] for position in originals]),
    )


def _copy_seeds(seed: int, digests: list[str]) -> tuple[int, ...]:
    """Return a seed of 128 bits for each copy, the first half of a SHA-256.

    Copies of identical files are numbered from 0, so that they differ.
    """
    numbers: Counter[str] = Counter()
    seeds = []
    for digest in digests:
        text = f"balancing copy/{seed}/{digest}/{numbers[digest]}"
        seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
        numbers[digest] += 1
    return tuple(seeds)


def balance_with_augmentor(
    split: TrainingSplit,
    *,
    per_class: int,
    operations: object,
    seed: int,
    cache_dir: Path,
    workers: int,
    progress: ProgressCallback | None,
) -> BalancedSet:
    """Balance a training split so that every class has exactly ``per_class`` images.

    Copies are cached in ``cache_dir/balanced/<key>.npy`` and made only if that file is missing or
    damaged. The key covers everything that their pixels depend on.

    Args:
        operations: the configured list of operations; see ``check_operations``.
        workers: number of threads, at least 1; the result does not depend on it.

    Returns:
        The kept originals, in the split's order, followed by the copies, class by class.

    Raises:
        UserError: an operation is invalid.
        RunError: the copies cannot be written.
    """
    specs = parse_operations(operations)
    plan = plan_copies(split, per_class, seed)
    sources: tuple[NDArray[np.uint8], ...] = (split.pixels,)
    rows = split.rows[plan.kept]
    if len(plan.copied):
        shape = (len(plan.copied), *split.pixels.shape[1:])
        path = cache_dir / "balanced" / f"{_cache_key(split, plan, specs)}.npy"

        def make() -> None:
            check_operations(operations, (shape[1], shape[2]))
            make_copies(
                path,
                split.pixels,
                split.rows[plan.copied],
                plan.seeds,
                specs,
                workers=workers,
                progress=progress,
            )

        copies: NDArray[np.uint8] = load_or_compute(path, lambda: open_array(path, shape), make)
        sources = (split.pixels, copies)
        rows = np.concatenate([rows, len(split.pixels) + np.arange(len(copies))])
    originals = np.concatenate([plan.kept, plan.copied])
    return BalancedSet(
        sources=sources,
        rows=rows,
        labels=split.labels[originals],
        n_classes=split.n_classes,
        metadata=split.select_metadata(originals),
    )


def _cache_key(split: TrainingSplit, plan: CopyPlan, specs: tuple[OperationSpec, ...]) -> str:
    """Return a digest of everything that the copies' pixels depend on.

    A copy is a function of its original, its seed and the operations; labels, ``per_class`` and the
    run's seed have an effect through the plan only.
    """
    # Every eighth pixel of each original: a sixtieth of the bytes, and enough to notice that the
    # same files were decoded or resized in another way.
    thumbnails = np.ascontiguousarray(split.pixels[split.rows[plan.copied], ::8, ::8])
    content = {
        "version": BALANCING_VERSION,
        "originals": [split.digests[position] for position in plan.copied],
        "pixels": hashlib.sha256(thumbnails.data).hexdigest(),
        "image_shape": split.pixels.shape[1:],
        "seeds": plan.seeds,
        "operations": specs,
        "augmentor": version("augmentor"),
        "pillow": PIL.__version__,
    }
    return hash_text(json.dumps(content, sort_keys=True))


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

    Threads are sufficient: Pillow releases the interpreter's lock while it works on pixels, and
    every thread has its own random numbers (see ``augmentor_operations``). Processes were tried,
    but starting them took longer than they saved.

    Args:
        originals: uint8, shape (images, height, width, 3).
        rows: int64, shape (m,), m at least 1: row in ``originals`` of each copy's original.
        seeds: m seeds, one for each copy.

    Raises:
        RunError: the file cannot be written.
    """
    if workers < 1:
        raise ValueError(f"Expected at least 1 worker. Received {workers}")
    built = build_operations(operations)
    pixels = np.asarray(originals)
    chunks = [range(i, min(i + CHUNK, len(rows))) for i in range(0, len(rows), CHUNK)]
    with (
        write_array(path, (len(rows), *originals.shape[1:])) as file,
        silence_augmentor(),
        ThreadPoolExecutor(workers) as threads,
    ):

        def write(chunk: range) -> int:
            block = np.stack([augment_image(pixels[rows[i]], built, seeds[i]) for i in chunk])
            file.write(chunk.start, block)
            return len(chunk)

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
