"""Masks of rectangles in a batch of images, one for each image."""

from __future__ import annotations

from typing import Any

from keras import ops


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
