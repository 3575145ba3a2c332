"""Rectangles in a batch of images, one each."""

from __future__ import annotations

from typing import Any

from keras import ops


def build_box_mask(
    *, middle_x: Any, middle_y: Any, box_height: Any, box_width: Any, height: int, width: int
) -> Any:
    """Which pixels lie in a box that is cut off where it leaves the image.

    Args:
        middle_x: of the boxes, in pixels from the left edge, shape (b,).
        middle_y: of the boxes, in pixels from the upper edge, shape (b,).
        box_height: in pixels, shape (b,).
        box_width: in pixels, shape (b,).
        height: of the images.
        width: of the images.

    Returns:
        bool, shape (b, height, width, 1): pixels whose middle lies in the box.
    """
    rows = ops.arange(height, dtype="float32") + 0.5
    columns = ops.arange(width, dtype="float32") + 0.5
    tall = ops.abs(rows - middle_y[:, None]) < box_height[:, None] / 2
    wide = ops.abs(columns - middle_x[:, None]) < box_width[:, None] / 2
    return ops.logical_and(tall[:, :, None, None], wide[:, None, :, None])
