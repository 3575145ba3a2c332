"""How every figure of the lab looks: colours, sizes and the few parts that figures share.

Figures are made with ``matplotlib.figure.Figure`` and the Agg canvas, never with pyplot: pyplot
keeps every figure alive in global state, which leaks over a sweep and is not safe in threads. For
the same reason sizes are passed to the artists rather than set in ``rcParams``.
"""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

DPI = 130

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
# Their yellow is left out: a thin yellow line cannot be seen on white.
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
"""Colours of classes; vermillion is kept for what a figure stresses."""

DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
"""Line styles; the next one is taken when the colours are used up."""

TITLE_SIZE = 12
LABEL_SIZE = 10.5
TICK_SIZE = 9.5
NOTE_SIZE = 8.5

FOOTER = "Research use only - not a medical device"


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, whose parts are laid out without overlapping."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    fig = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def dress(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes their title and labels, and take away what carries no information."""
    ax.set_title(title, fontsize=TITLE_SIZE, loc="left")
    ax.set_xlabel(x, fontsize=LABEL_SIZE)
    ax.set_ylabel(y, fontsize=LABEL_SIZE)
    ax.tick_params(labelsize=TICK_SIZE, color=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.set_axisbelow(True)


def put_title(fig: Figure, what: str, result: str = "") -> None:
    """Put up to two centred lines over a figure: what it shows and, beneath, its numbers."""
    fig.suptitle("\n".join(filter(None, (what, result))), fontsize=TITLE_SIZE)


def add_footer(fig: Figure) -> None:
    """Say beneath a figure that shows predictions what they are not for."""
    # As a label of the figure, not a free text, so that the layout keeps room for it.
    fig.supxlabel(FOOTER, fontsize=NOTE_SIZE, color=GREY, x=0.995, ha="right")


def class_label(slug: str, width: int | None = None) -> str:
    """A class's slug as a reader wants it, broken into lines of at most ``width`` characters."""
    name = slug.replace("_", " ").strip()
    if width is not None:
        name = "\n".join(textwrap.wrap(name, width))
    return name.replace("$", r"\$")  # a dollar sign would start a formula


def say_empty(ax: Axes, what: str) -> None:
    """Write in empty axes why nothing is drawn there."""
    ax.text(0.5, 0.5, what, transform=ax.transAxes, ha="center", va="center", color=GREY)


def number(value: float) -> str:
    """Three decimals, or a word where the value is undefined."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"
