"""The style of all figures: colours, sizes and shared parts.

Figures are made with ``matplotlib.figure.Figure`` and the Agg canvas, never with pyplot: pyplot
keeps every figure in global state, which leaks memory over a sweep and is not safe in threads. For
the same reason sizes are passed to the artists rather than set in ``rcParams``.
"""

from __future__ import annotations

import math
import textwrap
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image

DPI = 130

# Okabe and Ito, "Color Universal Design" (2008): distinguishable with every common colour
# blindness. Their yellow is left out, because a thin yellow line cannot be seen on white.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
SKY = "#56B4E9"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
BLACK = "#000000"
GREY = "#6E6E6E"
LIGHT_GREY = "#D9D9D9"

CYCLE = (BLUE, GREEN, ORANGE, SKY, PURPLE, BLACK)
"""Colours of classes; vermillion is reserved for emphasis."""

DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
"""Line styles; when all colours are used, they start again with the next style."""

TITLE_SIZE = 12
LABEL_SIZE = 10.5
TICK_SIZE = 9.5
NOTE_SIZE = 8.5

FOOTER = "Research use only - not a medical device"


def new_figure(width: float, height: float, *, by_hand: bool = False) -> Figure:
    """Return an empty figure; width and height are in inches.

    With ``by_hand`` the caller places the axes by ``set_margins``, which takes half the processor
    time; otherwise Matplotlib's constrained layout avoids overlaps.
    """
    layout = None if by_hand else ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    fig = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def new_axes(
    width: float, height: float, *, left: float, right: float, bottom: float, top: float
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; its size and the margins are in inches."""
    fig = new_figure(width, height, by_hand=True)
    set_margins(fig, left=left, right=right, bottom=bottom, top=top)
    return fig, fig.add_subplot()


def set_margins(
    fig: Figure, *, left: float, right: float, bottom: float, top: float, between: float = 0.0
) -> None:
    """Set the margins of a figure's axes, and the gap between columns and rows of axes, in inches.

    The figure is one of ``new_figure`` with ``by_hand=True``; axes that are added later get the
    margins too.
    """
    width, height = fig.get_size_inches()
    grid = fig.axes[0].get_gridspec() if fig.axes else None
    columns, rows = (grid.ncols, grid.nrows) if grid else (1, 1)
    fig.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=columns * between / (width - left - right - (columns - 1) * between),
        hspace=rows * between / (height - bottom - top - (rows - 1) * between),
    )


def estimate_text_width(texts: Iterable[str], size: float) -> float:
    """Estimate the width of the widest of several texts in inches, rather too large than too small.

    The font size is in points; a text may have several lines.
    """
    longest = max((len(line) for text in texts for line in text.split("\n")), default=0)
    return 0.6 * size / 72 * longest  # an average letter of DejaVu Sans is 0.58 of its size


def new_sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure, and axes over the whole figure whose units are inches.

    The origin is the lower left corner. Drawing several pictures in these axes takes a third of the
    time of drawing each in its own axes.
    """
    fig = new_figure(width, height, by_hand=True)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return fig, ax


def draw_picture(
    ax: Axes, pixels: NDArray[np.uint8], corner: tuple[float, float], size: tuple[float, float]
) -> None:
    """Draw a picture, uint8 (h, w, 3), RGB, on the axes of ``new_sheet``.

    Its lower left corner, its width and its height are in inches.
    """
    x, y = corner
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(
        pixels, extent=(x, x + size[0], y, y + size[1]), aspect="auto", interpolation="bilinear"
    )
    ax.set(xlim=limits[0], ylim=limits[1])


def save_png(fig: Figure, path: Path, *, photographs: bool = False) -> None:
    """Lay out a figure of ``new_figure``, which must not change afterwards, and write a PNG file.

    ``Figure.savefig`` does the same in three times the processor time: it visits all artists a
    third time for the layout, and compressing takes longer than drawing. ``photographs`` says
    whether the figure consists mainly of photographs, not of areas of one colour; it chooses the
    compression.
    """
    canvas = FigureCanvasAgg(fig)
    if (engine := fig.get_layout_engine()) is not None:
        engine.execute(fig)
        fig.set_layout_engine("none")
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    if photographs:
        pixels.save(path, dpi=(DPI, DPI), compress_level=1)
    else:
        pixels.save(path, dpi=(DPI, DPI), compress_type=zlib.Z_RLE)


def style_axes(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Set the title and labels of axes, and remove lines without information."""
    ax.set_title(title, fontsize=TITLE_SIZE, loc="left")
    ax.set_xlabel(x, fontsize=LABEL_SIZE)
    ax.set_ylabel(y, fontsize=LABEL_SIZE)
    ax.tick_params(labelsize=TICK_SIZE, color=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.set_axisbelow(True)


def set_title(fig: Figure, what: str, result: str = "") -> None:
    """Set a figure's title: a line that says what it shows, and optionally one with results."""
    fig.suptitle("\n".join(filter(None, (what, result))), fontsize=TITLE_SIZE)


def draw_legend_above(fig: Figure, ax: Axes, count_columns: Callable[[Sequence[str]], int]) -> None:
    """Draw the legend of axes above the figure, so that no name hides what is drawn.

    Args:
        count_columns: returns the number of columns for the labels.
    """
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=count_columns(labels),
        frameon=False,
        fontsize=TICK_SIZE,
    )


def add_footer(fig: Figure) -> None:
    """Add a footer to a figure of predictions: they are for research only."""
    # As a label of the figure, not as a text, so that the layout reserves space for it.
    fig.supxlabel(FOOTER, fontsize=NOTE_SIZE, color=GREY, x=0.995, ha="right")


def format_class_name(slug: str, width: int | None = None) -> str:
    """Format a class's slug for display, in lines of at most ``width`` characters."""
    name = slug.replace("_", " ").strip()
    if width is not None:
        name = "\n".join(textwrap.wrap(name, width))
    return name.replace("$", r"\$")  # a dollar sign would start a formula


def annotate_empty(ax: Axes, what: str) -> None:
    """Write into empty axes why they are empty."""
    ax.text(0.5, 0.5, what, transform=ax.transAxes, ha="center", va="center", color=GREY)


def format_metric_value(value: float) -> str:
    """Format a metric with three decimals, or as ``undefined`` if it is NaN."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"
