"""Random flip, rotation and crop of every image in a single interpolation."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from melanoma_lab.models.augmentation.random_layer import RandomLayer


class RandomAffine(RandomLayer):
    """Layer that flips, rotates and crops every image of a batch with its own random values.

    Separate layers would interpolate, and therefore blur, two or three times. Beyond its edges an
    image is continued by its mirror image: a network could learn from corners filled with a colour.

    Args:
        flip: whether to mirror images left to right and, independently, top to bottom, each with
            probability 0.5.
        rotation: largest angle in degrees, in both directions; 180 allows every angle.
        crop: smallest share of an image's area that is kept, 0 < crop <= 1. The share and the
            position are uniform, and the kept part is enlarged to the size of the image.
        seed: seed of the layer's random numbers.
    """

    NAME = "affine"

    def __init__(self, *, flip: bool, rotation: float, crop: float, seed: int) -> None:
        super().__init__(seed=seed)
        self.flip, self.rotation, self.crop = flip, rotation, crop

    def change(self, batch: Any) -> Any:
        """Augment pixels, shape (b, height, width, 3)."""
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
    """Apply affine transforms to a batch; bilinear, with mirror images beyond the edges."""
    return ops.image.affine_transform(
        pixels, transform, interpolation="bilinear", fill_mode="reflect"
    )


def build_linear_part(angle: Any, scale: Any, signs: Any) -> Any:
    """Build the linear part of a flip, a rotation and an enlargement.

    Args:
        angle: angles in radians, shape (b,).
        scale: shares of the height and width that are kept, shape (b,).
        signs: -1 to mirror, 1 otherwise, shape (2, b): left to right, and top to bottom.

    Returns:
        The four entries of the matrices from output to input coordinates, row by row, shape (4, b).
    """
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    return ops.stack([cosine * signs[0], -sine * signs[1], sine * signs[0], cosine * signs[1]])


def build_affine_transform(*, linear: Any, shifts: Any, height: Any, width: Any) -> Any:
    """Build the affine transforms from output to input coordinates.

    Args:
        linear: matrices from output to input coordinates, relative to the centre of the image, row
            by row, shape (4, b).
        shifts: shifts of the centre to the right and down, shape (2, b). The unit is half the
            distance from the first pixel to the last.
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        float32, shape (b, 8): a0 a1 a2 b0 b1 b2 0 0, as ``keras.ops.image.affine_transform`` takes
        them. The output pixel at (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    middle_x = (ops.cast(width, "float32") - 1) / 2
    middle_y = (ops.cast(height, "float32") - 1) / 2
    a0, a1, b0, b1 = (linear[k] for k in range(4))
    a2 = middle_x * (1 + shifts[0]) - a0 * middle_x - a1 * middle_y
    b2 = middle_y * (1 + shifts[1]) - b0 * middle_x - b1 * middle_y
    zero = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)
