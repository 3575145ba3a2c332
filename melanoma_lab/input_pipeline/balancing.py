"""Balance the classes of a training split by a strategy that the configuration names.

Original images are never changed; copies, which only Augmentor makes, are in the cache folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.input_pipeline.augmentor import balance_with_augmentor
from melanoma_lab.input_pipeline.balanced_set import (
    BalancedSet,
    TrainingSplit,
    make_generator,
)

if TYPE_CHECKING:
    from melanoma_lab.config.schema.training_images import (
        AugmentorBalancing,
        Balancing,
        Oversample,
        Undersample,
    )


@dataclass(frozen=True)
class BalancingContext:
    """Settings that every balancing strategy gets, besides its options and the split."""

    seed: int
    cache_dir: Path
    workers: int = 1
    progress: ProgressCallback | None = None


def balance(
    options: Balancing,
    split: TrainingSplit,
    *,
    seed: int,
    cache_dir: Path,
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> BalancedSet:
    """Balance a training split as configured.

    Args:
        options: the chosen option of the group ``balancing``; its ``name`` selects the strategy.
        split: training images; no other images can be balanced.
        seed: seed of the run, at least 0. The result depends on options, split and seed only.

    Raises:
        TypeError: ``split`` is not a ``TrainingSplit``.
        UserError: the options do not fit the images.
        RunError: the cache cannot be written.
    """
    if not isinstance(split, TrainingSplit):
        raise TypeError(
            f"Expected a TrainingSplit: only training images are balanced. Received {type(split)}"
        )
    if options.name not in STRATEGIES:
        raise ValueError(f"Expected one of {sorted(STRATEGIES)}. Received {options.name!r}")
    context = BalancingContext(seed=seed, cache_dir=cache_dir, workers=workers, progress=progress)
    return STRATEGIES[options.name](options, split, context)


def oversample(
    _options: Oversample, split: TrainingSplit, context: BalancingContext
) -> BalancedSet:
    """Repeat originals until every class has the size of the largest class.

    Each original occurs ``largest // n`` or ``largest // n + 1`` times, where n is the size of its
    class. The ones that occur once more are drawn without replacement.
    """
    _require_every_class(split, "oversample")
    largest = int(split.class_counts().max())
    positions = [np.arange(len(split))]
    for index in range(split.n_classes):
        members = np.flatnonzero(split.labels == index)
        times, rest = divmod(largest, len(members))
        once_more = make_generator(context.seed, "oversample", index).choice(
            members, rest, replace=False
        )
        positions += [np.repeat(members, times - 1), np.sort(once_more)]
    return _select_originals(split, np.concatenate(positions))


def undersample(
    options: Undersample, split: TrainingSplit, context: BalancingContext
) -> BalancedSet:
    """Reduce every class to the size of the smallest class with images, or to ``per_class``.

    The images that are kept are drawn at random. The number of steps in an epoch does not change,
    so that the kept images are used more often.
    """
    counts = split.class_counts()
    size = options.per_class or int(counts[counts > 0].min())
    if options.per_class is not None and size >= counts.max():
        raise UserError(
            f"balancing.per_class={size}: no class of the training split has more than "
            f"{counts.max()} images, so none would be left out."
        )
    kept = []
    for index in range(split.n_classes):
        members = np.flatnonzero(split.labels == index)
        cut = make_generator(context.seed, "undersample", index)
        kept.append(cut.choice(members, min(size, len(members)), replace=False))
    return _select_originals(split, np.sort(np.concatenate(kept)))


def fill_with_augmentor(
    options: AugmentorBalancing, split: TrainingSplit, context: BalancingContext
) -> BalancedSet:
    """Give every class exactly ``per_class`` images, with copies made by Augmentor's operations."""
    _require_every_class(split, "augmentor")
    return balance_with_augmentor(
        split,
        per_class=options.per_class,
        operations=options.operations,
        seed=context.seed,
        cache_dir=context.cache_dir,
        workers=context.workers,
        progress=context.progress,
    )


#: Strategies by the name of their option in the group ``balancing``. Add new strategies here.
STRATEGIES: dict[str, Callable[[Any, TrainingSplit, BalancingContext], BalancedSet]] = {
    "none": lambda _options, split, _context: _select_originals(split, np.arange(len(split))),
    "class_weight": lambda _options, split, _context: _select_originals(
        split, np.arange(len(split)), compute_balanced_weights(split.class_counts())
    ),
    "effective_number": lambda options, split, _context: _select_originals(
        split,
        np.arange(len(split)),
        compute_effective_number_weights(split.class_counts(), options.beta),
    ),
    "oversample": oversample,
    "undersample": undersample,
    "augmentor": fill_with_augmentor,
}


def compute_balanced_weights(class_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute class weights that give every class with images the same total weight in the loss.

    The weight of class c is ``n / (k * n_c)`` for n images, k classes with images and n_c images of
    class c: scikit-learn's ``class_weight="balanced"``, after King and Zeng (2001). The mean weight
    of an image is 1. Counts and weights have the shape (n_classes,); the weight of a class without
    images is 0.
    """
    present = class_counts > 0
    weights = np.zeros(len(class_counts))
    weights[present] = class_counts.sum() / (present.sum() * class_counts[present])
    return weights.astype(np.float32)


def compute_effective_number_weights(
    class_counts: NDArray[np.int64], beta: float
) -> NDArray[np.float32]:
    """Compute class weights by the inverse of the effective number of a class's images.

    That number is ``(1 - beta**n) / (1 - beta)`` for n images: Cui et al. (2019), Proposition 1. If
    beta is 0, every image has the same weight; towards 1 the weights become the balanced ones. As
    for ``compute_balanced_weights``, the mean weight of an image is 1, so that beta does not change
    the size of a step. The paper fixes the sum over classes instead.
    """
    present = class_counts > 0
    counts = class_counts[present].astype(np.float64)
    # 1 / (1 - beta**n), accurate even if beta is close to 1.
    inverse = 1 / -np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts)
    weights = np.zeros(len(class_counts))
    weights[present] = inverse * counts.sum() / (inverse * counts).sum()
    return weights.astype(np.float32)


def _select_originals(
    split: TrainingSplit,
    positions: NDArray[np.int64],
    weights: NDArray[np.float32] | None = None,
) -> BalancedSet:
    """Return the images at some positions of the split, without copies or augmentation."""
    return BalancedSet(
        sources=(split.pixels,),
        rows=split.rows[positions],
        labels=split.labels[positions],
        n_classes=split.n_classes,
        class_weight=weights,
        metadata=split.select_metadata(positions),
    )


def _require_every_class(split: TrainingSplit, strategy: str) -> None:
    """Refuse a training split in which a class has no image."""
    empty = [
        name
        for name, count in zip(split.class_names, split.class_counts(), strict=True)
        if not count
    ]
    if empty:
        raise UserError(
            f"balancing={strategy}: the training split has no image of {format_list(empty)}, so "
            "there is nothing to repeat. Leave the class out (dataset.classes), or give the "
            "training split a larger share."
        )
