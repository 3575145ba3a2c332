"""Figures with Grad-CAM: heat maps laid over images, and the most confident decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.plots import style

#: Inches: side of an image, and gaps between two images, two pairs, two blocks.
CELL, GAP, BETWEEN, APART = 1.3, 0.05, 0.24, 0.5
#: Inches: a class's name above its images, the decision below them, and the gap before the next.
NAME, DECIDED, NEXT = 0.24, 0.22, 0.16
#: The most classes in one column of blocks; more classes are drawn in two columns.
MOST_ROWS = 4
CAPTION = (
    "{} probabilities. Coloured areas raised the score of the predicted class (Grad-CAM, {} x {} "
    "cells, smoothed;\n"
    "the line: half of the highest value). They do not say why, nor whether the decision is right, "
    "nor that it would be\n"
    "another one without them. Plain grey: no area raised the score. The most confident decisions "
    "are not typical."
)


@dataclass(frozen=True)
class DecidedImage:
    """One image with its predicted class and that class's probability.

    Attributes:
        pixels: uint8, shape (s, s, 3).
        laid_over: uint8, shape (s, s, 3); the image with its heat map.
    """

    pixels: NDArray[np.uint8]
    laid_over: NDArray[np.uint8]
    predicted: str
    probability: float


@dataclass(frozen=True)
class ClassExamples:
    """The most confident right and wrong decision on images of one class.

    Attributes:
        right: the right decision; None if there is none.
        wrong: the wrong decision; None if there is none.
    """

    slug: str
    right: DecidedImage | None
    wrong: DecidedImage | None


def draw_surest_decisions(
    blocks: Sequence[ClassExamples], split: str, *, places: tuple[int, int], calibrated: bool
) -> Figure:
    """Draw images and their heat maps, class by class.

    ``places`` are rows and columns of the heat maps before they were smoothed.
    """
    # Positions are computed here, because equal cells need no layout engine. Sizes are in inches.
    columns = 1 if len(blocks) <= MOST_ROWS else 2
    rows = -(-len(blocks) // columns)
    block_width = 4 * CELL + 2 * GAP + BETWEEN
    block_height = NAME + CELL + DECIDED + NEXT
    inner = columns * block_width + (columns - 1) * APART
    width, top, foot = max(inner, 8.2) + 0.4, 0.85, 0.95
    height = top + rows * block_height + foot
    fig, ax = style.new_sheet(width, height)
    for i, block in enumerate(blocks):
        column, row = divmod(i, rows)
        left = (width - inner) / 2 + column * (block_width + APART)
        upper = height - top - row * block_height
        ax.text(left, upper - 0.17, style.format_class_name(block.slug), fontsize=style.LABEL_SIZE,
              fontweight="bold")  # fmt: skip
        pairs = (("most confident, right", block.right), ("most confident, wrong", block.wrong))
        for j, (heading, decided) in enumerate(pairs):
            x = left + j * (2 * CELL + GAP + BETWEEN)
            if row == 0:
                ax.text(x, upper + 0.06, heading, fontsize=style.NOTE_SIZE, color=style.GREY)
            y = upper - NAME - CELL
            if decided is None:
                ax.text(x, y + CELL / 2, "none", fontsize=style.TICK_SIZE, color=style.GREY)
                continue
            for k, picture in enumerate((decided.pixels, decided.laid_over)):
                style.draw_picture(ax, picture, (x + k * (CELL + GAP), y), (CELL, CELL))
            wrong = decided.predicted != block.slug
            text = style.format_class_name(decided.predicted)
            text = (
                f"{'predicted ' if wrong else ''}{text}, {format_percent(decided.probability, 0)}"
            )
            ax.text(x, y - 0.16, text, fontsize=style.NOTE_SIZE,
                  color=style.VERMILLION if wrong else style.BLACK)  # fmt: skip
    ax.text(width / 2, height - 0.34, f"Grad-CAM of the most confident decisions, {split}",
          fontsize=style.TITLE_SIZE, ha="center")  # fmt: skip
    caption = CAPTION.format("Calibrated" if calibrated else "Uncalibrated", *places)
    ax.text(0.2, 0.3, caption, fontsize=style.NOTE_SIZE, color=style.GREY, va="bottom")
    ax.text(width - 0.1, 0.08, style.FOOTER, fontsize=style.NOTE_SIZE, color=style.GREY, ha="right")
    return fig


#: Colour map whose lightness rises evenly, so that it is readable in grey and with any colour
#: blindness; its greens do not occur in skin.
COLOUR_MAP: Final = "viridis"
#: Opacity of the map at its maximum.
MAX_OPACITY: Final = 0.6
#: The contour is drawn around the area with at least this share of the maximum.
CONTOUR_SHARE: Final = 0.5


def overlay_heat_map(pixels: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay a heat map over its image.

    The image is shown in grey. The opacity of the map rises with its value, from 0 at 0, so an
    image with an empty map is plain grey. A white contour surrounds the area with at least half of
    the maximum.

    Args:
        pixels: uint8, shape (h, w, 3), RGB.
        heat: float, shape (h, w), 0 to 1; 1 is the maximum.

    Returns:
        uint8, shape (h, w, 3), RGB.

    Raises:
        ValueError: the shapes do not match.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or heat.shape != pixels.shape[:2]:
        raise ValueError(
            f"Expected pixels (h, w, 3) and heat (h, w). Received {pixels.shape} and {heat.shape}."
        )
    grey = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
    heat = np.clip(heat, 0.0, 1.0)
    share = (MAX_OPACITY * heat)[..., None]
    colours = 255 * colormaps[COLOUR_MAP](heat)[..., :3]
    blended = (1 - share) * grey[..., None] + share * colours
    blended[_find_edge(heat >= CONTOUR_SHARE)] = 255
    overlay: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return overlay


def overlay_on_picture(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a heat map, float32 (s, s), 0 to 1, over an RGB picture; it is stretched to its size."""
    stretched = Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.fromarray(overlay_heat_map(np.asarray(picture), np.asarray(stretched)))


def _find_edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of an area with a neighbour (up, down, left or right) outside it."""
    around = np.pad(inside, 1, mode="edge")
    within = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: NDArray[np.bool_] = inside & ~within
    return edge
