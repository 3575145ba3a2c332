"""What training draws: batches as a pure function of the seed and the step.

The training images come in passes, each in an order of its own; batches are cut from the endless
row of passes. So an epoch may be shorter or longer than a pass, and a run may start at any step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import EpochLength
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.model_inputs import join_inputs

#: Keeps the order's random numbers apart from others that are drawn from the same seed.
ORDER_STREAM = 0x0D


def count_steps_per_epoch(
    epoch: EpochLength, *, n_split: int, n_balanced: int, batch_size: int
) -> int:
    """Optimizer steps an epoch.

    Args:
        epoch: whether an epoch is a pass over the training split or over what balancing made.
        n_split: images of the training split.
        n_balanced: images that balancing made of them.
        batch_size: images a step.
    """
    n = n_balanced if epoch is EpochLength.balanced else n_split
    return -(-n // batch_size)


def select_batch(step: int, *, n: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Which images a step draws.

    Args:
        step: the optimizer step, from 0.
        n: number of images in a pass.
        batch_size: images a step.
        seed: the run's seed.

    Returns:
        int64, shape (batch_size,); positions 0 <= p < n. Every n consecutive ones, counted from
        the first step, are a permutation.
    """
    first = step * batch_size
    drawn: list[NDArray[np.int64]] = []
    wanted = batch_size
    while wanted:
        number, offset = divmod(first + batch_size - wanted, n)
        part = _pass_order(number, n, seed)[offset : offset + wanted]
        drawn.append(part)
        wanted -= len(part)
    return np.concatenate(drawn)


@functools.lru_cache(maxsize=2)
def _pass_order(number: int, n: int, seed: int) -> NDArray[np.int64]:
    """The order of one pass over the images."""
    return np.random.default_rng([ORDER_STREAM, seed, number]).permutation(n)


def make_training_batches(
    images: BalancedSet, *, batch_size: int, seed: int, first_step: int, last_step: int
) -> Any:
    """A tf.data dataset with one element a step.

    Args:
        images: what an epoch draws from.
        batch_size: images a step.
        seed: of the order.
        first_step: step to begin with.
        last_step: step to end before.

    Returns:
        Elements (inputs, float32 one-hot labels (b, K), float32 weights (b,)). Inputs are uint8
        pixels (b, H, W, 3), or whatever the images hold in their place; or a pair of these and
        float32 metadata (b, d).
    """
    n_classes = images.n_classes
    weight = np.ones(n_classes, np.float32) if images.class_weight is None else images.class_weight

    def draw(step: Any) -> tuple[NDArray[Any], ...]:
        positions = select_batch(int(step), n=len(images), batch_size=batch_size, seed=seed)
        pixels, labels = images.gather(positions)
        known = () if images.metadata is None else (images.metadata[positions],)
        return pixels, *known, one_hot(labels, n_classes), weight[labels]

    like = [images.sources[0], *([] if images.metadata is None else [images.metadata])]
    return _numpy_dataset(draw, first_step, last_step, like, n_classes)


def make_evaluation_batches(
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    n_classes: int,
    batch_size: int,
    metadata: NDArray[np.float32] | None = None,
) -> Any:
    """A tf.data dataset over images in their order, as they were photographed.

    Args:
        pixels: uint8, shape (m, H, W, 3), the decode cache; or features, float32, shape (m, d).
        rows: int64, shape (n,); which of them.
        labels: int64, shape (n,).
        n_classes: number of classes.
        batch_size: images a batch; the last one may be smaller.
        metadata: float32, shape (n, d): of their patients; None where the image alone counts.

    Returns:
        Elements as of ``make_training_batches``, all weights one.
    """

    def take(step: Any) -> tuple[NDArray[Any], ...]:
        part = slice(int(step) * batch_size, (int(step) + 1) * batch_size)
        known = () if metadata is None else (metadata[part],)
        ones = np.ones(len(rows[part]), np.float32)
        return pixels[rows[part]], *known, one_hot(labels[part], n_classes), ones

    like = [pixels, *([] if metadata is None else [metadata])]
    return _numpy_dataset(take, 0, -(-len(rows) // batch_size), like, n_classes)


def one_hot(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Class indices, shape (n,), as float32 one-hot rows, shape (n, n_classes)."""
    return np.eye(n_classes, dtype=np.float32)[labels]


def _numpy_dataset(
    make: Callable[[Any], Any],
    first: int,
    last: int,
    like: Sequence[NDArray[Any]],
    n_classes: int,
) -> Any:
    """A dataset of what a NumPy function makes of each number from first to last.

    Inputs have the dtypes of ``like``, and the shapes of one of its rows.
    """
    import tensorflow as tf

    def element(step: Any) -> Any:
        dtypes = (*(tf.as_dtype(array.dtype) for array in like), tf.float32, tf.float32)
        *inputs, labels, weights = tf.numpy_function(make, [step], dtypes, stateful=False)
        for tensor, array in zip(inputs, like, strict=True):
            tensor.set_shape((None, *array.shape[1:]))
        labels.set_shape((None, n_classes))
        weights.set_shape((None,))
        return join_inputs(inputs[0], tuple(inputs[1:])), labels, weights

    dataset = tf.data.Dataset.range(first, last).map(element)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, last - first)))
    # Nothing here is tuned, and TensorFlow 2.21's tuner sleeps for 10 ms, 20 ms, 40 ms... without
    # waking when a pass has ended, which then waits for it: up to as long again as it took.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return dataset.prefetch(2).with_options(untuned)
