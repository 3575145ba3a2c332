"""The strategies by name, and those that need no copies: weights, repeating, leaving out."""

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
from melanoma_lab.input_pipeline.balancing.augmentor import balance_with_augmentor
from melanoma_lab.input_pipeline.balancing.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.balancing.random_streams import make_generator
from melanoma_lab.input_pipeline.training_split import TrainingSplit

if TYPE_CHECKING:
    from melanoma_lab.config.schema.balancing import (
        AugmentorBalancing,
        Balancing,
        ClassWeight,
        EffectiveNumber,
        NoBalancing,
        Oversample,
        Undersample,
    )


@dataclass(frozen=True)
class BalancingContext:
    """What a strategy may use beside its options and the split.

    Attributes:
        seed: the run's seed, at least 0.
        cache_dir: the lab's cache folder, for what a strategy makes.
        workers: threads to use at most, at least 1; must not change the result.
        progress: told of the images made so far and the images to make, where that takes long.
    """

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
    """Balance the training images as configured.

    Args:
        options: the chosen option of the group ``balancing``; its ``name`` picks the strategy.
        split: the training images. Nothing else can be balanced.
        seed: the run's seed, at least 0; the result is a function of options, split and seed.
        cache_dir: the lab's cache folder; nothing is written anywhere else.
        workers: threads to use at most, at least 1.
        progress: told of the images made so far and the images to make.

    Returns:
        What an epoch is drawn from.

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
    setting = BalancingContext(seed=seed, cache_dir=cache_dir, workers=workers, progress=progress)
    return STRATEGIES[options.name](options, split, setting)


def keep_as_is(
    _options: NoBalancing, split: TrainingSplit, _setting: BalancingContext
) -> BalancedSet:
    """The training images as they are."""
    return _originals(split, np.arange(len(split)))


def weight_classes(
    _options: ClassWeight, split: TrainingSplit, _setting: BalancingContext
) -> BalancedSet:
    """The training images as they are, and a weight for each class in the loss."""
    return _originals(split, np.arange(len(split)), compute_balanced_weights(split.class_counts()))


def weight_by_effective_number(
    options: EffectiveNumber, split: TrainingSplit, _setting: BalancingContext
) -> BalancedSet:
    """The training images as they are, weighted by how much their class's images tell."""
    weights = compute_effective_number_weights(split.class_counts(), options.beta)
    return _originals(split, np.arange(len(split)), weights)


def oversample(
    _options: Oversample, split: TrainingSplit, setting: BalancingContext
) -> BalancedSet:
    """Every class to the size of the largest, by repeating whole originals.

    Each original occurs ``largest // n`` or ``largest // n + 1`` times, where n is its class's
    size; which ones occur once more is drawn without replacement.
    """
    _require_every_class(split, "oversample")
    largest = int(split.class_counts().max())
    positions = [np.arange(len(split))]
    for index in range(split.n_classes):
        members = np.flatnonzero(split.labels == index)
        times, rest = divmod(largest, len(members))
        once_more = make_generator(setting.seed, "oversample", index).choice(
            members, rest, replace=False
        )
        positions += [np.repeat(members, times - 1), np.sort(once_more)]
    return _originals(split, np.concatenate(positions))


def undersample(
    options: Undersample, split: TrainingSplit, setting: BalancingContext
) -> BalancedSet:
    """Every class to the size of the smallest that occurs, or to at most ``per_class``.

    Which images stay is random. An epoch keeps its number of steps, so they are seen more often.
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
        cut = make_generator(setting.seed, "undersample", index)
        kept.append(cut.choice(members, min(size, len(members)), replace=False))
    return _originals(split, np.sort(np.concatenate(kept)))


def fill_with_augmentor(
    options: AugmentorBalancing, split: TrainingSplit, setting: BalancingContext
) -> BalancedSet:
    """Every class to exactly ``per_class`` images; Augmentor's operations make the copies."""
    _require_every_class(split, "augmentor")
    return balance_with_augmentor(
        split,
        per_class=options.per_class,
        operations=options.operations,
        seed=setting.seed,
        cache_dir=setting.cache_dir,
        workers=setting.workers,
        progress=setting.progress,
    )


#: Name of an option of the group ``balancing`` -> its strategy. An entry added here is found.
STRATEGIES: dict[str, Callable[[Any, TrainingSplit, BalancingContext], BalancedSet]] = {
    "none": keep_as_is,
    "class_weight": weight_classes,
    "effective_number": weight_by_effective_number,
    "oversample": oversample,
    "undersample": undersample,
    "augmentor": fill_with_augmentor,
}


def compute_balanced_weights(class_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights under which every class that occurs weighs the same in the loss.

    ``n / (k * n_c)`` for n images, k classes that occur and n_c images of class c: scikit-learn's
    ``class_weight="balanced"``, after King and Zeng (2001). The mean over images is 1.

    Args:
        class_counts: int64, shape (n_classes,); images per class.

    Returns:
        float32, shape (n_classes,); 0 for a class that does not occur.
    """
    present = class_counts > 0
    weights = np.zeros(len(class_counts))
    weights[present] = class_counts.sum() / (present.sum() * class_counts[present])
    return weights.astype(np.float32)


def compute_effective_number_weights(
    class_counts: NDArray[np.int64], beta: float
) -> NDArray[np.float32]:
    """Weights by the inverse of a class's effective number of images.

    That number is ``(1 - beta**n) / (1 - beta)`` for n images: Cui et al. (2019), Proposition 1.
    The weights are scaled so that their mean over images is 1, as those of
    ``compute_balanced_weights`` are, and not, as in the paper, to a sum over classes: so the choice
    of beta does not change the size of a step.

    Args:
        class_counts: int64, shape (n_classes,); images per class.
        beta: 0 gives every image the same weight; towards 1 it becomes the balanced weight.

    Returns:
        float32, shape (n_classes,); 0 for a class that does not occur.
    """
    present = class_counts > 0
    counts = class_counts[present].astype(np.float64)
    # 1 - beta**n, exact also where beta is close to 1.
    inverse = 1 / -np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts)
    weights = np.zeros(len(class_counts))
    weights[present] = inverse * counts.sum() / (inverse * counts).sum()
    return weights.astype(np.float32)


def _originals(
    split: TrainingSplit,
    positions: NDArray[np.int64],
    weights: NDArray[np.float32] | None = None,
) -> BalancedSet:
    """Some images of the split, by their positions in it, as they were photographed."""
    return BalancedSet(
        sources=(split.pixels,),
        rows=split.rows[positions],
        labels=split.labels[positions],
        n_classes=split.n_classes,
        class_weight=weights,
        metadata=split.select_metadata(positions),
    )


def _require_every_class(split: TrainingSplit, strategy: str) -> None:
    """Refuse a class without a single image to repeat."""
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
