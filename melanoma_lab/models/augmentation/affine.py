"""Flip, rotation and crop of every image in one interpolation."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from melanoma_lab.models.augmentation.random_layer import RandomLayer


class RandomAffine(RandomLayer):
    """Turns, mirrors and crops images, each in its own way.

    One layer each would interpolate, and so blur, two or three times. What lies beyond an image's
    edge is its mirror image: a filled corner would be something to learn by.

    Args:
        flip: mirror left to right half of the time and, independently, top to bottom.
        rotation: largest angle in degrees, both ways; 180 is the whole circle.
        crop: smallest share of an image's area that is kept, 0 < crop <= 1; the share is uniform,
            the place too, and what is kept is enlarged to the whole.
        seed: of the random numbers.
        name: the layer's.
    """

    def __init__(
        self, *, flip: bool, rotation: float, crop: float, seed: int, name: str = "affine"
    ) -> None:
        super().__init__(seed=seed, name=name)
        self.flip, self.rotation, self.crop = flip, rotation, crop

    def change(self, batch: Any) -> Any:
        """Pixels, shape (b, height, width, 3), to the same."""
        b, height, width, _ = ops.shape(batch)
        limit = math.radians(self.rotation)
        angle = self.uniform((b,), -limit, limit)
        scale = ops.sqrt(self.uniform((b,), self.crop, 1.0))
        signs = ops.ones((2, b))
        if self.flip:
            signs = ops.where(self.uniform((2, b)) < 0.5, -1.0, 1.0)
        shifts = self.uniform((2, b), -1.0, 1.0) * (1 - scale)
        transform = build_affine_transform(
            linear=build_linear_part(angle, scale, signs), shifts=shifts, height=height, width=width
        )
        return apply_affine(batch, transform)


def apply_affine(pixels: Any, transform: Any) -> Any:
    """Apply ``build_affine_transform``'s answer to a batch, bilinear, mirrored beyond the edges."""
    return ops.image.affine_transform(
        pixels, transform, interpolation="bilinear", fill_mode="reflect"
    )


def build_linear_part(angle: Any, scale: Any, signs: Any) -> Any:
    """The linear part of a flip, a rotation and an enlargement.

    Args:
        angle: radians, shape (b,).
        scale: kept share of the height and width, shape (b,).
        signs: -1 mirrors, 1 does not; (left to right, top to bottom), shape (2, b).

    Returns:
        The four entries of a matrix from the output to the input, row by row, shape (4, b).
    """
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    return ops.stack([cosine * signs[0], -sine * signs[1], sine * signs[0], cosine * signs[1]])


def build_affine_transform(*, linear: Any, shifts: Any, height: Any, width: Any) -> Any:
    """Where in an image each pixel of its picture is taken from.

    Args:
        linear: matrix from the output to the input about their middles, row by row, shape (4, b).
        shifts: of the middle, in halves of the way from the first pixel to the last, to the right
            and down, shape (2, b).
        height: of the images in pixels.
        width: of the images in pixels.

    Returns:
        float32, shape (b, 8): a0 a1 a2 b0 b1 b2 0 0, as ``keras.ops.image.affine_transform`` takes
        them: the pixel at (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    middle_x = (ops.cast(width, "float32") - 1) / 2
    middle_y = (ops.cast(height, "float32") - 1) / 2
    a0, a1, b0, b1 = (linear[k] for k in range(4))
    a2 = middle_x * (1 + shifts[0]) - a0 * middle_x - a1 * middle_y
    b2 = middle_y * (1 + shifts[1]) - b0 * middle_x - b1 * middle_y
    zero = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)
