"""The figure of a network's most confident decisions: images with their Grad-CAM heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
    """One image with its predicted class.

    Attributes:
        pixels: uint8, shape (s, s, 3).
        laid_over: uint8, shape (s, s, 3); the image with its heat map.
        predicted: slug of the predicted class.
        probability: probability of the predicted class.
    """

    pixels: NDArray[np.uint8]
    laid_over: NDArray[np.uint8]
    predicted: str
    probability: float


@dataclass(frozen=True)
class ClassExamples:
    """The most confident right and wrong decision on images of one class.

    Attributes:
        slug: slug of the class.
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

    Args:
        blocks: the decisions of one or more classes.
        split: name of the images' split.
        places: rows and columns of the heat maps before they were smoothed.
        calibrated: whether the probabilities are calibrated.
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
