"""Scales of a sweep's figures: positions of values, ticks and their labels."""

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
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.sweep import Sweep

#: The place on a parallel coordinate of trials that do not use its key.
ASIDE = -0.12


def score_limits(sweep: Sweep) -> tuple[float, float]:
    """Return the least and greatest score to draw, so that very bad trials do not flatten a figure.

    On the better side it is the best score; on the worse side at most three interquartile ranges
    beyond the quartile.

    Raises:
        ValueError: no trial has a score.
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
    """Return evenly spread offsets that are the same each time.

    Returns:
        Offsets from -width / 2 to width / 2; float64, shape (trials,).
    """
    return (np.mod(numbers * (math.sqrt(5) - 1) / 2, 1) - 0.5) * width


def get_jitter_width(entry: HyperParameter) -> float:
    """Return the width over which trials of the same value are spread; 0 if none is needed."""
    if entry.kind == "float":
        return 0.0
    low, high = get_axis_ends(entry)
    return 0.02 * (high - low) if entry.kind == "int" else 0.5


def get_axis_ends(entry: HyperParameter) -> tuple[float, float]:
    """Return the least and greatest value to draw, in the numbers of ``encode_values``."""
    if not entry.is_range:
        return 0.0, float(len(entry.labels) - 1)
    low, high = entry.low, entry.high
    return (math.log10(low), math.log10(high)) if entry.log else (low, high)


def choose_axis_ticks(entry: HyperParameter) -> list[tuple[float, str]]:
    """Return a searched key's ticks, in the numbers of ``encode_values``, and their labels."""
    if not entry.is_range:
        width = max(5, 60 // len(entry.labels))
        return [(float(i), clean_figure_text(name, width)) for i, name in enumerate(entry.labels)]
    low, high = entry.low, entry.high
    if entry.log:
        return [(math.log10(x), format_number(x)) for x in log_ticks(low, high)]
    steps = MaxNLocator(5, integer=entry.kind == "int", min_n_ticks=1).tick_values(low, high)
    inside = [x for x in steps if low <= x <= high] if low < high else [low]
    return [(float(x), format_number(round(float(x), 12))) for x in inside]


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most six round numbers of a logarithmic range; all powers of two of a short one."""
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
    sweep: Sweep, entry: HyperParameter, trials: pd.DataFrame
) -> NDArray[np.float64]:
    """Return where trials cross a searched key's parallel coordinate; float64, shape (trials,).

    Places are from 0 to 1, or ``ASIDE`` for trials that do not use the key.
    """
    places = encode_values(sweep, entry, trials)
    if not entry.is_range:
        places = places + jitter(trials["number"].to_numpy(float), 0.16)
    shares = _scale_to_unit(places, entry)
    return np.where(np.isnan(shares), ASIDE, shares)


def line_ticks(entry: HyperParameter) -> list[tuple[float, str]]:
    """Return the ticks of a searched key's parallel coordinate, from 0 to 1, and their labels."""
    marks = choose_axis_ticks(entry)
    places = _scale_to_unit(np.array([place for place, _ in marks]), entry)
    return [(float(place), text) for place, (_, text) in zip(places, marks, strict=True)]


def compute_score_positions(sweep: Sweep, trials: pd.DataFrame) -> NDArray[np.float64]:
    """Return where trials cross the coordinate of scores, from 0 to 1; float64, shape (trials,)."""
    low, high = score_limits(sweep)
    scores = np.clip(trials["score"].to_numpy(float), low, high)
    return (scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)


def score_ticks(sweep: Sweep) -> list[tuple[float, str]]:
    """Return the ticks of the coordinate of scores, from 0 to 1, and their labels."""
    low, high = score_limits(sweep)
    if low == high:
        return [(0.5, sweep_text.format_score(sweep, low))]
    return [(0.0, sweep_text.format_score(sweep, low)), (1.0, sweep_text.format_score(sweep, high))]


def _scale_to_unit(places: NDArray[np.float64], entry: HyperParameter) -> NDArray[np.float64]:
    """Scale numbers of ``encode_values`` to places from 0 to 1."""
    low, high = get_axis_ends(entry)
    if not entry.is_range:  # room for the jitter
        low, high = low - 0.1, high + 0.1
    return (places - low) / (high - low) if high > low else 0.5 + 0 * places


def clean_figure_text(text: str, width: int) -> str:
    """Shorten a text and replace the characters that the font lacks, for use in a figure."""
    short = text if len(text) <= width else f"{text[: width - 1]}…"
    known = "".join(sign if ord(sign) in _glyphs() else "\N{WHITE SQUARE}" for sign in short)
    return known.replace("$", r"\$")  # a dollar sign would start a formula


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
