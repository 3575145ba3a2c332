"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719), with separate operations for every image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from melanoma_lab.models.augmentation_layers import (
    RandomLayer,
    apply_affine,
    build_affine_transform,
    recolour,
)


class RandAugmentLayer(RandomLayer):
    """Layer that applies operations to each image, drawn separately for every image.

    Ranges are torchvision's. Operations are Pillow's, except that geometric operations interpolate,
    and continue an image beyond its edges by its mirror image instead of black or grey. Keras's
    layer of the same name draws the operations once for a whole batch, and computes all operations
    on every image to use two. This layer computes the drawn operations only.

    Args:
        per_image: number of operations applied to an image, one after the other; the same operation
            may be drawn twice.
        magnitude: strength of the operations, 0 to 30.
        operations: names of the operations to draw from, keys of ``OPERATIONS``.
    """

    NAME = "rand_augment"
    #: The magnitude at which every operation has its full strength.
    STRONGEST = 30

    def __init__(
        self, *, per_image: int, magnitude: float, operations: Sequence[str], seed: int
    ) -> None:
        super().__init__(seed=seed)
        self.per_image = per_image
        self.level = magnitude / self.STRONGEST
        self.operations = [OPERATIONS[operation] for operation in operations]

    def change(self, batch: Any) -> Any:
        """Augment pixels, values 0 to 255, shape (b, height, width, 3)."""
        shape = (ops.shape(batch)[0], self.per_image)
        which = ops.floor(self.uniform(shape, 0, len(self.operations)))
        level = ops.where(self.uniform(shape) < 0.5, -self.level, self.level)

        def one_image(element: tuple[Any, Any, Any]) -> Any:
            image, which, level = element
            for k in range(self.per_image):
                image = ops.switch(ops.cast(which[k], "int32"), self.operations, image, level[k])
            return image

        return ops.map(one_image, (batch, which, level))


def _shear(image: Any, x: Any, y: Any) -> Any:
    one = ops.ones_like(x)
    return _warp(image, [one, x, y, one], [0 * x, 0 * x])


def _translate(image: Any, x: Any, y: Any) -> Any:
    """Shift an image by shares of its width and height."""
    height, width, _ = ops.shape(image)
    one = ops.ones_like(x)
    # The unit of shifts is half the distance from the first pixel's centre to the last one's.
    shifts = [2 * x * width / (width - 1), 2 * y * height / (height - 1)]
    return _warp(image, [one, 0 * x, 0 * x, one], shifts)


def _rotate(image: Any, level: Any) -> Any:
    angle = level * math.radians(30)
    return _warp(
        image, [ops.cos(angle), -ops.sin(angle), ops.sin(angle), ops.cos(angle)], [0 * angle] * 2
    )


def _warp(image: Any, linear: list[Any], shifts: list[Any]) -> Any:
    height, width, _ = ops.shape(image)
    transform = build_affine_transform(
        linear=ops.stack(linear)[:, None],
        shifts=ops.stack(shifts)[:, None],
        height=height,
        width=width,
    )
    return apply_affine(image[None], transform)[0]


def _recolour(image: Any, **factor: Any) -> Any:
    one = ops.ones((1,))
    factors = {"brightness": one, "contrast": one, "saturation": one, "turn": 0 * one}
    given = {name: ops.reshape(value, (1,)) for name, value in factor.items()}
    return recolour(image[None], **factors | given)[0]


def _sharpness(image: Any, factor: Any) -> Any:
    """Sharpen or blur an image; the outermost pixels do not change."""
    rows, middle = image[:-2] + image[1:-1] + image[2:], image[1:-1, 1:-1]
    blurred = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * middle) / 13
    inner = blurred + factor * (middle - blurred)
    middle = ops.concatenate([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return ops.clip(ops.concatenate([image[:1], middle, image[-1:]], axis=0), 0, 255)


def _posterize(image: Any, level: Any) -> Any:
    """Remove up to four of the eight bits of every value."""
    step = 2.0 ** ops.round(4 * ops.abs(level))
    return ops.floor(image / step) * step


def _solarize(image: Any, level: Any) -> Any:
    """Invert bright values."""
    return ops.where(image < 255 * (1 - ops.abs(level)), image, 255 - image)


def _autocontrast(image: Any) -> Any:
    """Stretch the values of every channel to 0 to 255."""
    low, high = ops.min(image, axis=(0, 1)), ops.max(image, axis=(0, 1))
    flat = high <= low
    stretched = (image - low) * (255 / ops.where(flat, 1.0, high - low))
    return ops.where(flat, image, ops.minimum(stretched, 255))


def _equalize(image: Any) -> Any:
    """Equalise the histogram of every channel, as Pillow does."""
    values = ops.cast(ops.round(image), "int32")
    # Counted by segment sums: bincount is not deterministic on a GPU.
    bins = ops.reshape(values + 256 * np.arange(3, dtype=np.int32), (-1,))
    counts = ops.reshape(ops.segment_sum(ops.ones_like(bins), bins, 3 * 256), (3, 256))
    up_to = ops.cumsum(counts, axis=1)
    total = up_to[:, -1:]
    highest = ops.max(values, axis=(0, 1))[:, None]
    step = (total - ops.take_along_axis(counts, highest, axis=1)) // 255
    table = ops.minimum((step // 2 + up_to - counts) // ops.maximum(step, 1), 255)
    table = ops.where(step == 0, np.arange(256, dtype=np.int32), table)
    equalized = ops.take(ops.reshape(table, (-1,)), bins)
    return ops.cast(ops.reshape(equalized, ops.shape(image)), image.dtype)


#: Functions by name of the operation. Each takes an image, float32, shape (height, width, 3),
#: values 0 to 255, and a level from -1 to 1, and returns the changed image. Operations with one
#: direction ignore the sign of the level.
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "identity": lambda image, _level: image,
    "shear_x": lambda image, level: _shear(image, 0.3 * level, 0 * level),
    "shear_y": lambda image, level: _shear(image, 0 * level, 0.3 * level),
    "translate_x": lambda image, level: _translate(image, 150 / 331 * level, 0 * level),
    "translate_y": lambda image, level: _translate(image, 0 * level, 150 / 331 * level),
    "rotate": _rotate,
    "brightness": lambda image, level: _recolour(image, brightness=1 + 0.9 * level),
    "colour": lambda image, level: _recolour(image, saturation=1 + 0.9 * level),
    "contrast": lambda image, level: _recolour(image, contrast=1 + 0.9 * level),
    "sharpness": lambda image, level: _sharpness(image, 1 + 0.9 * level),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda image, _level: _autocontrast(image),
    "equalize": lambda image, _level: _equalize(image),
}
