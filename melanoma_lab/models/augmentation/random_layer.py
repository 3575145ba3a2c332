"""Base class of augmentation layers, and masks of boxes in their images."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class RandomLayer(keras.layers.Layer):
    """Layer that changes a batch at random in training, and passes it through otherwise.

    Its random numbers come from one ``SeedGenerator``, whose state is a variable of the model with
    the layer: a training that resumes from a checkpoint of the model's ``variables`` draws the same
    numbers, bit for bit. The layer computes in float32 under every precision: half precision would
    round the pixels.

    A subclass implements ``change`` and has a ``NAME``, the name of the layer.

    Args:
        seed: seed of the layer's random numbers.
    """

    NAME: str

    def __init__(self, *, seed: int) -> None:
        super().__init__(name=self.NAME, dtype="float32")
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


def build_box_mask(
    *, middle_x: Any, middle_y: Any, box_height: Any, box_width: Any, height: int, width: int
) -> Any:
    """Build a mask of one box for each image; parts of a box outside its image are cut off.

    Args:
        middle_x: centres of the boxes, in pixels from the left edge, shape (b,).
        middle_y: centres of the boxes, in pixels from the upper edge, shape (b,).
        box_height: heights of the boxes in pixels, shape (b,).
        box_width: widths of the boxes in pixels, shape (b,).
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        bool, shape (b, height, width, 1): True for pixels whose centre lies in the box.
    """
    rows = ops.arange(height, dtype="float32") + 0.5
    columns = ops.arange(width, dtype="float32") + 0.5
    tall = ops.abs(rows - middle_y[:, None]) < box_height[:, None] / 2
    wide = ops.abs(columns - middle_x[:, None]) < box_width[:, None] / 2
    return ops.logical_and(tall[:, :, None, None], wide[:, None, :, None])
