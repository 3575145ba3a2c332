"""Batches of images as tf.data datasets, and the inputs of the networks that take them.

The inputs of a network, and of a batch, are ``(pixels, metadata)`` if the network uses metadata,
and pixels alone otherwise. Instead of pixels they may contain features of a backbone. A saved
network with metadata takes a dictionary of pixels and columns instead.

A training batch depends on the seed and the step only. Training goes through the images in passes,
each with its own order, and batches are cut from the endless sequence of passes. Therefore an epoch
may be shorter or longer than a pass, and a training may start at any step.

Keras and TensorFlow are imported when something is built with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import EpochLength
from melanoma_lab.input_pipeline.balanced_set import BalancedSet

if TYPE_CHECKING:
    import keras


PIXELS, METADATA = "pixels", "metadata"
#: Part of the seeds of the order, so that they differ from other seeds of a run.
ORDER_STREAM = 0x0D


def split_inputs(inputs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the pixels, and a tuple of the metadata, which is empty without metadata."""
    if isinstance(inputs, tuple | list):
        pixels, *others = inputs
        return pixels, tuple(others)
    return inputs, ()


def join_inputs(pixels: Any, others: tuple[Any, ...]) -> Any:
    """Join what ``split_inputs`` has returned."""
    return (pixels, *others) if others else pixels


def build_inputs(network: keras.Model) -> Any:
    """Build float32 Keras inputs with the shapes of a network's inputs."""
    import keras

    names = (PIXELS, METADATA)[: len(network.inputs)]
    pixels, *others = [
        keras.Input(tensor.shape[1:], dtype="float32", name=name)
        for tensor, name in zip(network.inputs, names, strict=True)
    ]
    return join_inputs(pixels, tuple(others))


def get_named_inputs(network: keras.Model) -> dict[str, Any] | None:
    """Return a network's inputs by name if it takes a dictionary; otherwise None."""
    inputs = getattr(network, "input", None)  # a Sequential that was never called has no input
    return inputs if isinstance(inputs, dict) else None


def count_steps_per_epoch(
    epoch: EpochLength, *, n_split: int, n_balanced: int, batch_size: int
) -> int:
    """Return the number of optimizer steps in an epoch, over the training or the balanced split."""
    n = n_balanced if epoch is EpochLength.balanced else n_split
    return -(-n // batch_size)


def select_batch(step: int, *, n: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Select the images of a step, numbered from 0: int64, shape (batch_size,), 0 <= p < n.

    Counted from the first step, every block of n positions is a permutation.
    """
    first = step * batch_size
    drawn: list[NDArray[np.int64]] = []
    missing = batch_size
    while missing:
        number, offset = divmod(first + batch_size - missing, n)
        part = _pass_order(number, n, seed)[offset : offset + missing]
        drawn.append(part)
        missing -= len(part)
    return np.concatenate(drawn)


@functools.lru_cache(maxsize=2)
def _pass_order(number: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return the order of one pass over the images; int64, shape (n,)."""
    return np.random.default_rng([ORDER_STREAM, seed, number]).permutation(n)


def make_training_batches(
    images: BalancedSet, *, batch_size: int, seed: int, first_step: int, last_step: int
) -> Any:
    """Make a tf.data dataset with one training batch for each step.

    Args:
        first_step: first step, from 0.
        last_step: the step after the last one.

    Returns:
        tf.data dataset of (inputs, labels, weights): one-hot labels, float32, shape (b, K), and
        weights, float32, shape (b,). Inputs are pixels, uint8, shape (b, H, W, 3), or features; or
        a pair of these and metadata, float32, shape (b, d).
    """
    n_classes = images.n_classes
    weight = np.ones(n_classes, np.float32) if images.class_weight is None else images.class_weight

    def draw(step: Any) -> tuple[NDArray[Any], ...]:
        positions = select_batch(int(step), n=len(images), batch_size=batch_size, seed=seed)
        pixels, labels = images.gather(positions)
        metadata = () if images.metadata is None else (images.metadata[positions],)
        return pixels, *metadata, one_hot(labels, n_classes), weight[labels]

    examples = [images.sources[0], *([] if images.metadata is None else [images.metadata])]
    return _numpy_dataset(draw, first_step, last_step, examples, n_classes)


def make_evaluation_batches(
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    n_classes: int,
    batch_size: int,
    metadata: NDArray[np.float32] | None = None,
) -> Any:
    """Make a tf.data dataset for one pass over images in their order, without augmentation.

    Args:
        pixels: uint8, shape (m, H, W, 3), the cached pixels; or features, float32, shape (m, d).
        rows: int64, shape (n,): rows of ``pixels`` to use.
        labels: int64, shape (n,): class indices.
        batch_size: number of images in a batch; the last batch may be smaller.
        metadata: float32, shape (n, d): encoded patient metadata; None if they are not used.

    Returns:
        tf.data dataset of the same elements as from ``make_training_batches``; all weights are 1.
    """

    def take(step: Any) -> tuple[NDArray[Any], ...]:
        part = slice(int(step) * batch_size, (int(step) + 1) * batch_size)
        others = () if metadata is None else (metadata[part],)
        ones = np.ones(len(rows[part]), np.float32)
        return pixels[rows[part]], *others, one_hot(labels[part], n_classes), ones

    examples = [pixels, *([] if metadata is None else [metadata])]
    return _numpy_dataset(take, 0, -(-len(rows) // batch_size), examples, n_classes)


def one_hot(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Convert class indices, shape (n,), to one-hot rows, float32, shape (n, n_classes)."""
    return np.eye(n_classes, dtype=np.float32)[labels]


def _numpy_dataset(
    make: Callable[[Any], Any],
    first: int,
    last: int,
    examples: Sequence[NDArray[Any]],
    n_classes: int,
) -> Any:
    """Make a tf.data dataset of a NumPy function's results for first <= number < last.

    ``make`` returns the inputs, labels and weights of one batch. ``examples`` has an array for each
    input, with its dtype and the shape of one image's row.
    """
    import tensorflow as tf

    def element(step: Any) -> Any:
        dtypes = (*(tf.as_dtype(array.dtype) for array in examples), tf.float32, tf.float32)
        *inputs, labels, weights = tf.numpy_function(make, [step], dtypes, stateful=False)
        for tensor, array in zip(inputs, examples, strict=True):
            tensor.set_shape((None, *array.shape[1:]))
        labels.set_shape((None, n_classes))
        weights.set_shape((None,))
        return join_inputs(inputs[0], tuple(inputs[1:])), labels, weights

    dataset = tf.data.Dataset.range(first, last).map(element)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, last - first)))
    # Nothing here needs autotuning. TensorFlow 2.21's autotuner sleeps for 10, 20, 40 ms and so on,
    # and the end of a pass waits until it wakes up: up to as long again as the pass took.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return dataset.prefetch(2).with_options(untuned)
