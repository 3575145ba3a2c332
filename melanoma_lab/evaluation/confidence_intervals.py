"""Confidence intervals of proportions and means of images, clustered by group.

A network tends to classify photographs of one lesion, or copies of one photograph, alike: a hundred
of them carry less information than a hundred lesions. A group is a set of images that a split never
separates, such as a lesion and its copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

#: Confidence level of every interval here.
LEVEL = 0.95


@dataclass(frozen=True)
class IntervalEstimate:
    """A proportion or a metric with its 95 % interval; NaN if undefined."""

    value: float
    low: float
    high: float


UNDEFINED = IntervalEstimate(math.nan, math.nan, math.nan)


def estimate_proportion(hit: NDArray[np.bool_], groups: NDArray[np.int64]) -> IntervalEstimate:
    """Estimate the proportion of images that are hits, with an interval clustered by group.

    This is Wilson's interval for the effective number of images, n / d, with Student's quantile of
    G - 1 degrees of freedom for G groups (Korn and Graubard, Survey Methodology 24, 1998). The
    design effect d is Kish's for groups of m images, 1 + r (sum of m**2 / n - 1). The intraclass
    correlation r says how much more alike the images of one group are than those of two groups. It
    is estimated by Fleiss and Cuzick's method (Applied Psychological Measurement 3, 1979), but not
    below 0; it is set to 1 if all images are hits or none is, because it cannot be estimated then.

    The influence method, by which studies are compared, would give a proportion of 0 or 1 an
    interval of no width, and the rates here are often 1. In simulations of 12 and 40 lesions
    (``test_confidence_intervals.py``), whose images are independent or all alike, this interval
    covers the truth in 95 to 98 % with 1 to 3 images a lesion, and in 92 to 98 % with 1 to 8, in
    unequal numbers.

    Args:
        hit: bool, shape (n,).
        groups: int64, shape (n,), not negative; the group of each image.

    Returns:
        The proportion with its interval; all NaN if there are no images.
    """
    n = len(hit)
    if n == 0:
        return UNDEFINED
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    share = float(hit.mean())
    alike = 1.0
    if 0 < share < 1 and n > len(sizes):
        hits = np.bincount(index, weights=hit)
        within = (hits * (sizes - hits) / sizes).sum() / (n - len(sizes))
        alike = max(1 - within / (share * (1 - share)), 0.0)
    effect = 1 + alike * (np.square(sizes).sum() / n - 1)
    low, high = compute_wilson_interval(share, n / effect, _quantile(len(sizes)))
    return IntervalEstimate(share, low, high)


def compute_wilson_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's score interval (Journal of the American Statistical Association 22, 1927).

    The number of observations need not be an integer; ``quantile`` is the two-sided quantile of the
    error divided by its standard error.
    """
    square = quantile**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = quantile * math.sqrt(share * (1 - share) / n + square / (4 * n**2)) / (1 + square / n)
    # The interval contains the estimate except for rounding errors, which are removed here.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def average_proportions(parts: Sequence[IntervalEstimate]) -> IntervalEstimate:
    """Return the mean of the defined proportions, each of different groups, with its interval.

    The interval adds up the squares of the parts' one-sided widths (Zou and Donner, Statistics in
    Medicine 27, 2008). This keeps their asymmetry, and the width of the interval of a rare class
    whose few images are all classified correctly. All is NaN if no part is defined.
    """
    table = np.array([[part.value, part.low, part.high] for part in parts]).reshape(-1, 3)
    table = table[~np.isnan(table[:, 0])]
    if not len(table):
        return UNDEFINED
    value, low, high = table.T
    below = math.sqrt(np.square(value - low).sum()) / len(table)
    above = math.sqrt(np.square(high - value).sum()) / len(table)
    mean = float(value.mean())
    return IntervalEstimate(mean, max(mean - below, 0.0), min(mean + above, 1.0))


def compute_mean_interval(
    values: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of the 95 % interval of the mean of each column, clustered by group.

    Args:
        values: float64, shape (n, m); a row for each image.
        groups: int64, shape (n,), not negative; the group of each image.

    Returns:
        Lower and upper bounds, each of shape (m,); NaN for fewer than two groups.
    """
    n, m = values.shape
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return np.full(m, np.nan), np.full(m, np.nan)
    mean = values.mean(axis=0)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(names)))
    sums = np.add.reduceat(values[order] - mean, starts, axis=0)
    variance = len(names) / (len(names) - 1) * np.square(sums).sum(axis=0) / n**2
    half = _quantile(len(names)) * np.sqrt(variance)
    return mean - half, mean + half


def _quantile(n_groups: int) -> float:
    """Return Student's two-sided quantile for a number of groups."""
    return float(stdtrit(max(n_groups - 1, 1), (1 + LEVEL) / 2))
