"""Scales of a sweep's figures: where a value stands, which values are labelled, how they read."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from melanoma_lab.core.formatting import format_number
from melanoma_lab.tuning import sweep_text
from melanoma_lab.tuning.importance import encode_values
from melanoma_lab.tuning.sweep import Dimension, Sweep

#: Where a parallel coordinate is drawn of a trial in which a dimension does not count.
ASIDE = -0.12


def score_limits(sweep: Sweep) -> tuple[float, float]:
    """Least and greatest score that is drawn: a trial that went very wrong flattens no figure.

    The best is always inside; on the other side three interquartile ranges below the quartile are.
    """
    scores = sweep.scored["score"].to_numpy(float)
    if not scores.size:
        raise ValueError("Expected at least one trial with a score. Received none.")
    first, third = np.quantile(scores, [0.25, 0.75])
    low, high = float(scores.min()), float(scores.max())
    if sweep.higher_is_better:
        low = max(low, float(first - 3 * (third - first))) if third > first else low
    else:
        high = min(high, float(third + 3 * (third - first))) if third > first else high
    return low, high


def jitter(numbers: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """A displacement for every trial, evenly spread, the same whenever it is drawn."""
    return (np.mod(numbers * (math.sqrt(5) - 1) / 2, 1) - 0.5) * width


def get_jitter_width(dimension: Dimension) -> float:
    """How wide trials of the same value are spread, so that they can be told apart."""
    if dimension.kind == "float":
        return 0.0
    low, high = get_axis_ends(dimension)
    return 0.02 * (high - low) if dimension.kind == "int" else 0.5


def get_axis_ends(dimension: Dimension) -> tuple[float, float]:
    """Least and greatest place of a dimension, as ``encode_values`` gives them."""
    if not dimension.is_number:
        return 0.0, float(len(dimension.names) - 1)
    low, high = dimension.low or 0.0, dimension.high or 0.0
    return (math.log10(low), math.log10(high)) if dimension.log else (low, high)


def choose_axis_ticks(dimension: Dimension) -> list[tuple[float, str]]:
    """Places, as ``encode_values`` gives them, that get a label, and the labels."""
    if not dimension.is_number:
        width = max(5, 60 // len(dimension.names))
        return [
            (float(i), clean_figure_text(name, width)) for i, name in enumerate(dimension.names)
        ]
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.log:
        return [(math.log10(x), format_number(x)) for x in log_ticks(low, high)]
    steps = MaxNLocator(5, integer=dimension.kind == "int", min_n_ticks=1).tick_values(low, high)
    inside = [x for x in steps if low <= x <= high] if low < high else [low]
    return [(float(x), format_number(round(float(x), 12))) for x in inside]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic range, at most six; of a few powers of two all of them."""
    doublings = math.log2(high / low)
    if doublings <= 5 and float(low).is_integer() and doublings.is_integer():
        return [low * 2**i for i in range(round(doublings) + 1)]
    lowest, highest = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**power for power in range(lowest, highest + 1) for f in factors]
        inside = [x for x in ticks if low * 0.999999 <= x <= high * 1.000001]
        if len(inside) <= 6:
            return inside if len(inside) > 1 else sorted({low, high})
    return inside[:: math.ceil(len(inside) / 6)]


def compute_parallel_positions(
    sweep: Sweep, dimension: Dimension, trials: pd.DataFrame
) -> NDArray[np.float64]:
    """Where trials cross a dimension's line from 0 to 1: ``ASIDE`` where it does not count."""
    places = encode_values(sweep, dimension, trials)
    if not dimension.is_number:
        places = places + jitter(trials["number"].to_numpy(float), 0.16)
    shares = _on_line(places, dimension)
    return np.where(np.isnan(shares), ASIDE, shares)


def line_ticks(dimension: Dimension) -> list[tuple[float, str]]:
    """Places on a dimension's line from 0 to 1 that get a label, and the labels."""
    marks = choose_axis_ticks(dimension)
    places = _on_line(np.array([place for place, _ in marks]), dimension)
    return [(float(place), text) for place, (_, text) in zip(places, marks, strict=True)]


def compute_score_positions(sweep: Sweep, trials: pd.DataFrame) -> NDArray[np.float64]:
    """Where trials cross the line of scores, from 0 to 1."""
    low, high = score_limits(sweep)
    scores = np.clip(trials["score"].to_numpy(float), low, high)
    return (scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)


def score_ticks(sweep: Sweep) -> list[tuple[float, str]]:
    """Places on the line of scores from 0 to 1 that get a label, and the labels."""
    low, high = score_limits(sweep)
    if low == high:
        return [(0.5, sweep_text.format_score(sweep, low))]
    return [(0.0, sweep_text.format_score(sweep, low)), (1.0, sweep_text.format_score(sweep, high))]


def _on_line(places: NDArray[np.float64], dimension: Dimension) -> NDArray[np.float64]:
    """Places, as ``encode_values`` gives them, on a line from 0 to 1."""
    low, high = get_axis_ends(dimension)
    if not dimension.is_number:  # room for the jitter
        low, high = low - 0.1, high + 0.1
    return (places - low) / (high - low) if high > low else 0.5 + 0 * places


def clean_figure_text(text: str, width: int) -> str:
    """A text as a figure can show it: at most so many characters, only those of its font."""
    short = text if len(text) <= width else f"{text[: width - 1]}…"
    known = "".join(sign if ord(sign) in _glyphs() else "\N{WHITE SQUARE}" for sign in short)
    return known.replace("$", r"\$")  # a dollar sign would start a formula


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
