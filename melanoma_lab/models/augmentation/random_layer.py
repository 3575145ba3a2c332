"""Base class of augmentation layers."""

from __future__ import annotations

from typing import Any

import keras


class RandomLayer(keras.layers.Layer):
    """Layer that changes a batch at random in training, and passes it through otherwise.

    Its random numbers come from one ``SeedGenerator``, whose state is a variable of the model with
    the layer: a training that resumes from a checkpoint of the model's ``variables`` draws the same
    numbers, bit for bit. The layer computes in float32 under every precision: half precision would
    round the pixels.

    A subclass implements ``change``.

    Args:
        seed: seed of the layer's random numbers.
        name: name of the layer.
    """

    def __init__(self, *, seed: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.draws = keras.random.SeedGenerator(seed)

    def call(self, batch: Any, training: bool = False) -> Any:
        """Return the batch, changed if in training."""
        return self.change(batch) if training else batch

    def change(self, batch: Any) -> Any:
        """Return a changed training batch."""
        raise NotImplementedError

    def uniform(self, shape: tuple[Any, ...], low: float = 0.0, high: float = 1.0) -> Any:
        """Draw random numbers u, float32, low <= u < high."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.draws)


def broadcast_per_image(values: Any) -> Any:
    """Reshape (b,) to (b, 1, 1, 1), to be broadcast over a batch of images."""
    return keras.ops.reshape(values, (-1, 1, 1, 1))
