"""What the lab's augmentation layers share."""

from __future__ import annotations

from typing import Any

import keras


class RandomLayer(keras.layers.Layer):
    """A layer that changes a training batch at random and lets every other pass.

    Its random numbers come from one ``SeedGenerator``, whose state is a variable of the model that
    has the layer: a checkpoint of that model's ``variables`` continues them bit for bit. It
    computes in float32 whatever the precision: half precision would round the pixels.

    A subclass says in ``change`` what becomes of a batch.

    Args:
        seed: of the random numbers.
        name: the layer's.
    """

    def __init__(self, *, seed: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.draws = keras.random.SeedGenerator(seed)

    def call(self, batch: Any, training: bool = False) -> Any:
        """The batch, changed in training only."""
        return self.change(batch) if training else batch

    def change(self, batch: Any) -> Any:
        """What becomes of a training batch."""
        raise NotImplementedError

    def uniform(self, shape: tuple[Any, ...], low: float = 0.0, high: float = 1.0) -> Any:
        """Fresh random numbers, float32, low <= u < high."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.draws)


def broadcast_per_image(values: Any) -> Any:
    """Shape (b,) to (b, 1, 1, 1), which multiplies a batch of images."""
    return keras.ops.reshape(values, (-1, 1, 1, 1))
