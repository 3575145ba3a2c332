"""Training of one network on several devices, each of which computes its share of every batch.

``tf.distribute.MirroredStrategy`` keeps a copy of the weights on each device and adds up their
gradients, so that a step equals the step of a single device on the whole batch. Only batch
normalisation differs: it normalises each device's share separately.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from melanoma_lab.config.schema.training import Training
from melanoma_lab.training.callbacks import use_averaged_weights
from melanoma_lab.training.hardware import require_device_count

#: Added to a random generator's seed for each device after the first. Configured seeds are smaller.
SEED_STRIDE = 2**32


def scope(training: Training) -> AbstractContextManager[Any]:
    """Return the context in which networks and optimizers are built and fitted.

    Args:
        training: options with the number of devices. ``start_backend`` was called with it.
    """
    devices = require_device_count(training)
    return nullcontext() if devices == 1 else _strategy(devices).scope()


@functools.cache
def _strategy(devices: int) -> Any:
    """Return the process's only strategy for so many devices: TensorFlow refuses to mix two."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(devices)])


def rebuild_on_one_device(network: keras.Model) -> keras.Model:
    """Return a model with the same layers and weights that runs on the first device only.

    Evaluation and prediction need it: TensorFlow's convolutions fail if the last batch has no image
    for one of the devices. Call it outside ``scope``.

    Args:
        network: model that was built in ``scope``; any other is returned unchanged.
    """
    if not isinstance(network.distribute_strategy, tf.distribute.MirroredStrategy):
        return network
    return keras.Model(network.input, network.output, name=network.name)


class ValidationCallback(keras.callbacks.Callback):
    """Keras callback that validates on one device and adds the results to the epoch's metrics.

    It must come before the callbacks that use these metrics.

    Args:
        model: compiled model for one device, which shares its weights with the fitted model.
        data: tf.data dataset of (inputs, one-hot labels, weights), for one pass.
    """

    def __init__(self, model: keras.Model, data: Any) -> None:
        super().__init__()
        self._model_on_one_device, self._data = model, data

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Validate the current weights on one device; the averaged weights if there are any."""
        with use_averaged_weights(self.model):
            metrics = self._model_on_one_device.evaluate(self._data, return_dict=True, verbose=0)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in metrics.items()})


class ReplicaSeedsCallback(keras.callbacks.Callback):
    """Keras callback that gives every device its own random numbers.

    Keras starts the random generators of dropout and augmentation equally on all devices, so that
    dropout would remove the same units for the first image of every share. Device i uses the first
    device's state with its own seed: a pure function of the state in a checkpoint.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the random generators of all other devices from those of the first."""
        for variable in self.model.variables:
            if not variable.path.endswith("seed_generator_state"):
                continue
            first, *others = getattr(variable.value, "values", (variable.value,))
            for i, other in enumerate(others, start=1):
                other.assign(first + tf.constant([i * SEED_STRIDE, 0], first.dtype))


def with_loss_scaling(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Add float16's loss scaling to an optimizer if several devices train in mixed_float16.

    On one device Keras's ``compile`` adds it. Call it in ``scope``.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    if several and keras.config.dtype_policy().name == "mixed_float16":
        return _LossScaleOptimizer(optimizer)
    return optimizer


class _LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """An optimizer that skips a step if a gradient overflowed on any device.

    Keras's own class checks the first device only (Keras 3.15): an overflow on another device would
    make the weights infinite.
    """

    def check_finite(self, grads: Any) -> Any:
        overflowed = tf.cast(tf.logical_not(super().check_finite(grads)), tf.int32)
        total = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, overflowed
        )
        return tf.equal(total, 0)
