"""Random brightness, contrast, saturation and hue of every image in one affine transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from melanoma_lab.models.augmentation.random_layer import RandomLayer, broadcast_per_image

#: Weights of red, green and blue in luminance (ITU-R BT.601, as in Pillow's mode L).
LUMINANCE: NDArray[np.float32] = np.array([0.299, 0.587, 0.114], np.float32)
#: From RGB to NTSC's YIQ: luminance, and a plane of colours in which hue is the angle.
_YIQ = np.array([LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(LUMINANCE, (3, 1))
_QUARTER_TURN = (np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ).astype(
    np.float32
)


class RandomColour(RandomLayer):
    """Layer that changes the colours of every image of a batch with its own random values.

    Brightness, contrast and saturation are defined as in torchvision's ColorJitter and Pillow's
    ImageEnhance. Hue is rotated in YIQ, where the rotation is linear, not in HSV. Therefore one
    matrix and one offset for each image do all four, and values are clipped to 0..255 once at the
    end instead of after each change. Keras's layers need one pass over the batch for each change,
    half of them through HSV; its RandomSaturation leaves the range 0..255, and its
    RandomColorJitter computes in half precision if the network does.

    Args:
        brightness: factors are uniform in 1 - brightness to 1 + brightness; 0 to 1.
        contrast: the same for the distance from the image's mean luminance.
        saturation: the same for the distance from each pixel's own luminance.
        hue: largest rotation in both directions, as a share of a full turn; 0 to 0.5.
        seed: seed of the layer's random numbers.
    """

    NAME = "colour"

    def __init__(
        self, *, brightness: float, contrast: float, saturation: float, hue: float, seed: int
    ) -> None:
        super().__init__(seed=seed)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def change(self, batch: Any) -> Any:
        """Augment pixels, values 0 to 255, shape (b, height, width, 3)."""
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
        pixels: float32, values 0 to 255, shape (b, height, width, 3).
        brightness: factors, shape (b,).
        contrast: factors, shape (b,).
        saturation: factors, shape (b,).
        turn: rotations of the hue in radians, shape (b,).

    Returns:
        Pixels of the same shape, clipped to 0 to 255.
    """
    x, y, s = (ops.reshape(v, (-1, 1, 1)) for v in (ops.cos(turn), ops.sin(turn), saturation))
    # Hue and saturation do not change luminance, so that its mean is that of the input.
    matrix = _GREY + s * x * (np.eye(3, dtype=np.float32) - _GREY) + s * y * _QUARTER_TURN
    matrix = ops.reshape(brightness * contrast, (-1, 1, 1)) * matrix
    grey = ops.sum(ops.mean(pixels, axis=(1, 2)) * LUMINANCE, axis=1)
    offset = broadcast_per_image((1 - contrast) * brightness * grey)
    _, height, width, _ = ops.shape(pixels)
    flat = ops.reshape(pixels, (-1, height * width, 3))
    mixed = ops.reshape(ops.matmul(flat, ops.transpose(matrix, (0, 2, 1))), (-1, height, width, 3))
    return ops.clip(mixed + offset, 0, 255)
