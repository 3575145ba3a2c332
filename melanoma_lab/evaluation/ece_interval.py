"""How much of a calibration error is chance: an interval for the ECE over draws of lesions.

The ECE adds up absolute gaps, and chance makes a gap where there is none, so that the estimate is
too high, all the more the fewer lesions and the better the calibration. A bootstrap counts that
twice: in simulations of 60 to 1000 lesions the usual percentile interval never contained the truth
of a calibrated network and the basic one in 55 to 64 %; of an overconfident one, they did in 40 to
86 % and in 89 to 91 %. This interval asks instead which true errors would give the one seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from melanoma_lab.evaluation.calibration import reliability_bins
from melanoma_lab.evaluation.confidence_intervals import LEVEL, UNDEFINED, IntervalEstimate

Floats = NDArray[np.float64]

MOST_DRAWS, FEWEST_DRAWS = 1000, 200
"""Of lesions, and of what is right and wrong; the fewer, the more images there are."""

NUMBERS = 2_000_000
"""Numbers that are drawn at a time: 16 MB."""

PRIOR = 2.0
"""Images by which a bin's gap is drawn towards none, where a variance is taken from it."""

LARGEST = 50.0
"""Most that the true gaps may be of those that were seen."""


@dataclass(frozen=True)
class _Binned:
    """A split as the calibration error sees it.

    Attributes:
        top: confidences, shape (n,).
        hit: whether each was right, as numbers, shape (n,).
        bins: which bin each is in, shape (n,).
        groups: which group, from 0, shape (n,).
        n_bins: of them.
        gaps: of the bins, hit minus confidence, summed and divided by n; shape (n_bins,).
    """

    top: Floats
    hit: Floats
    bins: NDArray[np.intp]
    groups: NDArray[np.intp]
    n_bins: int
    gaps: Floats


def ece_interval(
    y_true: NDArray[np.int64], y_score: Floats, groups: NDArray[np.int64]
) -> IntervalEstimate:
    """The calibration error of the top label with its 95 % interval, over draws of groups.

    Test inversion by simulation. The true gaps of the bins are taken to be l times those seen, for
    some l >= 0 (at 0 the network is calibrated), and the interval reaches from the least to the
    greatest error of which what was seen is neither among the lowest nor the highest 2.5 %. What
    would be seen is simulated in two ways, and the wider answer counts: by drawing groups as they
    are, which knows all that varies, but takes a bin whose few images are all right for certain;
    and by drawing, for every image, whether it is right, with the chance that its confidence and
    its bin's gap give it and as alike within a group as the images are.

    In simulations of 60, 150 and 600 lesions with one to three images, half of them decided by
    one chance, of networks that are calibrated, too sure and not sure enough (200 studies each; the
    design of ``test_ece_interval.py``), it contains the truth in 90 to 98 %.

    Args:
        y_true: int64, shape (n,).
        y_score: float64, shape (n, K).
        groups: int64, shape (n,), not negative; the group of each image.

    Returns:
        The ECE of ``calibration.ece`` and its interval, which need not contain it: it may lie
        above, where chance alone would give as much. NaN bounds for fewer than two groups, all NaN
        for no images.
    """
    n = len(y_true)
    if n == 0:
        return UNDEFINED
    seen = _binned(y_true, y_score, groups)
    error = float(np.abs(seen.gaps).sum())
    n_groups = int(seen.groups.max()) + 1
    if n_groups < 2:
        return IntervalEstimate(error, np.nan, np.nan)
    n_draws = int(np.clip(NUMBERS // n, FEWEST_DRAWS, MOST_DRAWS))
    draw = np.random.default_rng(0)
    ways = [_lesions_drawn(seen, n_groups, n_draws, draw), _answers_drawn(seen, n_draws, draw)]
    bounds = np.array([_inverted(simulated, error) for simulated in ways]) * error
    return IntervalEstimate(error, float(bounds[:, 0].min()), min(float(bounds[:, 1].max()), 1.0))


def _binned(y_true: NDArray[np.int64], y_score: Floats, groups: NDArray[np.int64]) -> _Binned:
    bins = reliability_bins(y_true, y_score)
    top = y_score.max(axis=1)
    hit = (y_score.argmax(axis=1) == y_true).astype(np.float64)
    n_bins = len(bins.counts)
    gaps = np.bincount(bins.index, weights=hit - top, minlength=n_bins) / len(top)
    return _Binned(top, hit, bins.index, np.unique(groups, return_inverse=True)[1], n_bins, gaps)


def _lesions_drawn(
    seen: _Binned, n_groups: int, n_draws: int, draw: np.random.Generator
) -> Callable[[float], Floats]:
    """Errors that would be seen, by how the gaps vary over draws of groups; shape (n_draws,)."""
    cell = seen.groups * seen.n_bins + seen.bins
    gap = np.bincount(cell, weights=seen.hit - seen.top, minlength=n_groups * seen.n_bins)
    drawn = draw.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_draws)
    images = drawn @ np.bincount(seen.groups, minlength=n_groups)
    # A bootstrap's variance is too small by (G - 1) / G.
    wider = np.sqrt(n_groups / (n_groups - 1))
    noise = ((drawn @ gap.reshape(n_groups, -1)) / images[:, None] - seen.gaps) * wider
    return lambda scale: np.abs(scale * seen.gaps + noise).sum(axis=1)


def _answers_drawn(
    seen: _Binned, n_draws: int, draw: np.random.Generator
) -> Callable[[float], Floats]:
    """Errors that would be seen, by how right and wrong answers vary; shape (n_draws,)."""
    n = len(seen.top)
    count = np.bincount(seen.bins, minlength=seen.n_bins)
    gap = (seen.gaps * n / np.maximum(count, 1))[seen.bins]
    own = draw.random((n_draws, n))
    shared = draw.random((n_draws, int(seen.groups.max()) + 1))[:, seen.groups]
    luck = np.where(draw.random((n_draws, n)) < _alikeness(seen, count), shared, own)
    in_bin = np.eye(seen.n_bins)[seen.bins]

    def simulated(scale: float) -> Floats:
        right = luck < np.clip(seen.top + scale * gap, 0, 1)
        errors: Floats = np.abs((right - seen.top) @ in_bin).sum(axis=1) / n
        return errors

    return simulated


def _alikeness(seen: _Binned, count: NDArray[np.intp]) -> float:
    """How much more alike the images of one group are answered than those of two, 0 to 1."""
    sizes = np.bincount(seen.groups)
    pairs = float((sizes * (sizes - 1)).sum())
    if not pairs:
        return 0.0
    drawn_in = (seen.gaps * len(seen.top) / (count + PRIOR))[seen.bins]
    chance = np.clip(seen.top + drawn_in, 1e-3, 1 - 1e-3)
    residual = (seen.hit - chance) / np.sqrt(chance * (1 - chance))
    square = float(np.square(residual).sum())
    together = float(np.square(np.bincount(seen.groups, weights=residual)).sum()) - square
    return float(np.clip(together / pairs / (square / len(residual)), 0, 1))


def _inverted(simulated: Callable[[float], Floats], error: float) -> tuple[float, float]:
    """The least and the greatest scale of the gaps that what was seen does not speak against."""

    def crossing(level: float) -> float:
        def excess(scale: float) -> float:
            return float(np.quantile(simulated(scale), level)) - error

        if excess(0.0) >= 0:
            return 0.0
        return LARGEST if excess(LARGEST) <= 0 else float(brentq(excess, 0.0, LARGEST, xtol=1e-3))

    tail = (1 - LEVEL) / 2
    return crossing(1 - tail), crossing(tail)
