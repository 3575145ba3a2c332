"""The course project's balancing: every class to the same size, Augmentor makes the copies."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from melanoma_lab.core.checksummed_files import load_or_compute, open_array
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.input_pipeline.balancing.augmentor_operations import (
    OperationSpec,
    check_operations,
    get_augmentor_version,
    parse_operations,
)
from melanoma_lab.input_pipeline.balancing.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.balancing.copies import make_copies
from melanoma_lab.input_pipeline.balancing.random_streams import derive_copy_seed, make_generator
from melanoma_lab.input_pipeline.training_split import TrainingSplit

#: Part of every cache key; raised when the same plan would give other copies.
BALANCING_VERSION = 1


@dataclass(frozen=True, eq=False)
class CopyPlan:
    """Which originals stay, and which are copied how often.

    Attributes:
        kept: int64, shape (k,); positions in the split, ascending.
        copied: int64, shape (m,); position in the split of each copy's original.
        seeds: m seeds, one a copy.
    """

    kept: NDArray[np.int64]
    copied: NDArray[np.int64]
    seeds: tuple[int, ...]


def plan_copies(split: TrainingSplit, per_class: int, seed: int) -> CopyPlan:
    """Decide how every class gets exactly ``per_class`` images.

    A class that has more keeps a random subset. A class that has fewer keeps all and is filled up
    with copies; their originals are taken from the class in a random order, again and again, so
    that the most used has at most one copy more than the least used. (``Pipeline.sample`` draws
    with replacement: some originals many times, others never.)

    Args:
        split: the training images; every class must occur.
        per_class: images per class wanted, at least 1.
        seed: the run's seed.

    Returns:
        The plan; the same for the same images, whatever the order of other classes' images.
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
    """One seed a copy; copies of identical files are numbered together, so that they differ."""
    numbers: Counter[str] = Counter()
    seeds = []
    for digest in digests:
        seeds.append(derive_copy_seed(seed, digest, numbers[digest]))
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
    """Bring every class to exactly ``per_class`` images.

    The copies lie in ``cache_dir/balanced/<key>.npy`` and are made only where that is missing;
    the key covers everything that their pixels depend on.

    Args:
        split: the training images; every class must occur.
        per_class: images per class wanted, at least 1.
        operations: what the configuration says; see ``check_operations``.
        seed: the run's seed.
        cache_dir: the lab's cache folder.
        workers: threads to use, at least 1; the result does not depend on it.
        progress: told of the copies made so far and the copies to make.

    Returns:
        The originals that stay, in the split's order, then the copies, class by class.

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
    """Name the copies by all that their pixels depend on.

    A copy is a function of its original, its seed and the operations; labels, ``per_class`` and
    the run's seed act through the plan alone.
    """
    # Every eighth pixel of each original: reads a sixtieth of the bytes, and another way of
    # decoding or resizing the same files changes it.
    thumbnails = np.ascontiguousarray(split.pixels[split.rows[plan.copied], ::8, ::8])
    described = {
        "version": BALANCING_VERSION,
        "originals": [split.digests[position] for position in plan.copied],
        "pixels": hashlib.sha256(thumbnails.data).hexdigest(),
        "image_shape": split.pixels.shape[1:],
        "seeds": plan.seeds,
        "operations": specs,
        "augmentor": get_augmentor_version(),
        "pillow": PIL.__version__,
    }
    return hash_text(json.dumps(described, sort_keys=True))
