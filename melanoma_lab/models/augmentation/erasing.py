"""Random erasing of rectangles (Zhong et al. 2020, arXiv:1708.04896)."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from melanoma_lab.models.augmentation.random_layer import (
    RandomLayer,
    broadcast_per_image,
    build_box_mask,
)


class RandomErasing(RandomLayer):
    """Layer that fills a rectangle in some images with the image's own mean colour.

    That hides a part of the image and adds nothing that a network could learn from. (Keras's layer
    of the same name fills it with noise, half of which is black.)

    Args:
        share: share of images that lose a rectangle, 0 to 1.
        area: smallest and largest share of the image's area; uniform between them.
        seed: seed of the layer's random numbers.
    """

    NAME = "erase"
    #: Largest ratio of the longer side of a rectangle to the shorter one.
    ASPECT = 3.3

    def __init__(self, *, share: float, area: tuple[float, float], seed: int) -> None:
        super().__init__(seed=seed)
        self.share, self.area = share, area

    def change(self, batch: Any) -> Any:
        """Augment pixels, shape (b, height, width, 3)."""
        b, height, width, _ = ops.shape(batch)
        area = self.uniform((b,), *self.area) * height * width
        limit = math.log(self.ASPECT)
        aspect = ops.exp(self.uniform((b,), -limit, limit))
        box_height = ops.minimum(ops.sqrt(area * aspect), height)
        box_width = ops.minimum(ops.sqrt(area / aspect), width)
        # Inside the image, so that its area is the drawn one.
        mask = build_box_mask(
            middle_x=box_width / 2 + self.uniform((b,)) * (width - box_width),
            middle_y=box_height / 2 + self.uniform((b,)) * (height - box_height),
            box_height=box_height,
            box_width=box_width,
            height=height,
            width=width,
        )
        erased = ops.logical_and(mask, broadcast_per_image(self.uniform((b,)) < self.share))
        return ops.where(erased, ops.mean(batch, axis=(1, 2), keepdims=True), batch)
