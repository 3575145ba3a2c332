"""Random erasing (Zhong et al. 2020, arXiv:1708.04896)."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from melanoma_lab.models.augmentation.boxes import build_box_mask
from melanoma_lab.models.augmentation.random_layer import RandomLayer, broadcast_per_image


class RandomErasing(RandomLayer):
    """Paints a rectangle of some images over with the image's own mean colour.

    That hides a part and adds nothing to learn by. (Keras's layer of this name paints noise of
    which half is black.)

    Args:
        share: of images that lose a rectangle, 0 to 1.
        area: smallest and largest share of the image's area; uniform between.
        seed: of the random numbers.
        name: the layer's.
    """

    #: Height over width, and its inverse, of the longest rectangles.
    ASPECT = 3.3

    def __init__(
        self, *, share: float, area: tuple[float, float], seed: int, name: str = "erase"
    ) -> None:
        super().__init__(seed=seed, name=name)
        self.share, self.area = share, area

    def change(self, batch: Any) -> Any:
        """Pixels, shape (b, height, width, 3), to the same."""
        b, height, width, _ = ops.shape(batch)
        area = self.uniform((b,), *self.area) * height * width
        limit = math.log(self.ASPECT)
        aspect = ops.exp(self.uniform((b,), -limit, limit))
        box_height = ops.minimum(ops.sqrt(area * aspect), height)
        box_width = ops.minimum(ops.sqrt(area / aspect), width)
        # Wholly inside the image, so that the area is the one drawn.
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
