"""Brightness, contrast, saturation and hue of every image in one affine change of its colours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from melanoma_lab.models.augmentation.random_layer import RandomLayer, broadcast_per_image

#: Red's, green's and blue's shares of luminance (ITU-R BT.601, as in Pillow's mode L).
LUMINANCE: NDArray[np.float32] = np.array([0.299, 0.587, 0.114], np.float32)
#: RGB to the YIQ of NTSC: luminance and a plane of colours, in which hue is the angle.
_YIQ = np.array([LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(LUMINANCE, (3, 1))
_QUARTER_TURN = (np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ).astype(
    np.float32
)


class RandomColour(RandomLayer):
    """Changes the brightness, contrast, saturation and hue of images, each in its own way.

    The first three as torchvision's ColorJitter and Pillow's ImageEnhance do; hue is turned in YIQ,
    where that is linear, not in HSV. So one matrix and one offset an image make all four, and there
    is one rounding to 0..255 at the end instead of one after each. Keras's layers make a pass over
    the batch for each, half of them through HSV; its RandomSaturation leaves 0..255 and its
    RandomColorJitter computes in half precision where the network does.

    Args:
        brightness: factors are 1 - brightness to 1 + brightness, uniform; 0 to 1.
        contrast: the same, about the image's mean luminance.
        saturation: the same, about each pixel's own luminance.
        hue: largest share of a full turn, both ways; 0 to 0.5.
        seed: of the random numbers.
        name: the layer's.
    """

    def __init__(
        self,
        *,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        seed: int,
        name: str = "colour",
    ) -> None:
        super().__init__(seed=seed, name=name)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def change(self, batch: Any) -> Any:
        """Pixels 0 to 255, shape (b, height, width, 3), to the same."""
        b = ops.shape(batch)[0]
        turn = self.uniform((b,), -self.hue, self.hue) * (2 * math.pi)
        return recolour(
            batch,
            brightness=1 + self.uniform((b,), -self.brightness, self.brightness),
            contrast=1 + self.uniform((b,), -self.contrast, self.contrast),
            saturation=1 + self.uniform((b,), -self.saturation, self.saturation),
            turn=turn,
        )


def recolour(pixels: Any, *, brightness: Any, contrast: Any, saturation: Any, turn: Any) -> Any:
    """Change the colours of every image: hue, saturation, brightness, then contrast.

    Args:
        pixels: float32, 0 to 255, shape (b, height, width, 3).
        brightness: factors, shape (b,).
        contrast: factors, shape (b,).
        saturation: factors, shape (b,).
        turn: of the hue, in radians, shape (b,).

    Returns:
        The same shape, clipped to 0 to 255.
    """
    x, y, s = (ops.reshape(v, (-1, 1, 1)) for v in (ops.cos(turn), ops.sin(turn), saturation))
    # Hue and saturation leave luminance alone, so its mean is that of what came in.
    matrix = _GREY + s * x * (np.eye(3, dtype=np.float32) - _GREY) + s * y * _QUARTER_TURN
    matrix = ops.reshape(brightness * contrast, (-1, 1, 1)) * matrix
    grey = ops.sum(ops.mean(pixels, axis=(1, 2)) * LUMINANCE, axis=1)
    offset = broadcast_per_image((1 - contrast) * brightness * grey)
    _, height, width, _ = ops.shape(pixels)
    flat = ops.reshape(pixels, (-1, height * width, 3))
    mixed = ops.reshape(ops.matmul(flat, ops.transpose(matrix, (0, 2, 1))), (-1, height, width, 3))
    return ops.clip(mixed + offset, 0, 255)
