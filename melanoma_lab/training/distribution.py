"""One network trained on several devices at once, each computing its share of every batch.

``tf.distribute.MirroredStrategy`` keeps a copy of the weights on each device and adds up their
gradients, so that a step is the one that a single device would take on the whole batch. Batch
normalisation alone differs: it sees a device's share.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from melanoma_lab.config.schema.training import Training
from melanoma_lab.training.ema import use_averaged_weights
from melanoma_lab.training.hardware import require_device_count

#: Added to a random generator's seed for every further device; no configured seed is so large.
SEED_STRIDE = 2**32


def scope(training: Training) -> AbstractContextManager[Any]:
    """In this context networks and optimizers are made for the configured devices, and fitted.

    Args:
        training: its number of devices; ``start_backend`` has been called with it.
    """
    devices = require_device_count(training)
    return nullcontext() if devices == 1 else _strategy(devices).scope()


@functools.cache
def _strategy(devices: int) -> Any:
    """One object for all that belongs together: TensorFlow refuses to mix two."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(devices)])


def rebuild_on_one_device(network: keras.Model) -> keras.Model:
    """The same layers and weights as a model that the first device computes alone.

    Looking at images takes it: a last batch that leaves a device without any makes TensorFlow's
    convolutions fail. To be called outside the scope.

    Args:
        network: made in the scope; one that was not is returned as it is.
    """
    if not isinstance(network.distribute_strategy, tf.distribute.MirroredStrategy):
        return network
    return keras.Model(network.input, network.output, name=network.name)


class ValidationCallback(keras.callbacks.Callback):
    """Adds an epoch's validation to its figures; comes before those that use them.

    Args:
        model: compiled, for one device.
        data: tf.data of (pixels, one-hot labels, weights), for one pass.
    """

    def __init__(self, model: keras.Model, data: Any) -> None:
        super().__init__()
        self._alone, self._data = model, data

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure what the weights are worth now."""
        with use_averaged_weights(self.model):
            figures = self._alone.evaluate(self._data, return_dict=True, verbose=0)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in figures.items()})


class ReplicaSeedsCallback(keras.callbacks.Callback):
    """Gives every device random numbers of its own.

    Keras starts the random generators of dropout and augmentation alike on all devices, so that
    the first image of every share would lose the same units. Device i counts on from the first
    one's state with a seed of its own: a pure function of what a checkpoint keeps.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the further devices' generators by the first one's."""
        for variable in self.model.variables:
            if not variable.path.endswith("seed_generator_state"):
                continue
            first, *others = getattr(variable.value, "values", (variable.value,))
            for i, other in enumerate(others, start=1):
                other.assign(first + tf.constant([i * SEED_STRIDE, 0], first.dtype))


def with_loss_scaling(optimizer: keras.Optimizer) -> keras.Optimizer:
    """The optimizer with float16's loss scaling where several devices need it done for them.

    On one device ``compile`` does it.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    if several and keras.config.dtype_policy().name == "mixed_float16":
        return _LossScaleOptimizer(optimizer)
    return optimizer


class _LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Skips a step where a gradient overflowed on any device.

    Keras's own looks at the first device alone (Keras 3.15): an overflow on another one would
    make the weights infinite.
    """

    def check_finite(self, grads: Any) -> Any:
        overflowed = tf.cast(tf.logical_not(super().check_finite(grads)), tf.int32)
        total = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, overflowed
        )
        return tf.equal(total, 0)
