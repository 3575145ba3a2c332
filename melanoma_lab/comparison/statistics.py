"""Test whether a difference between two arms exceeds chance in the seeds and the test lesions.

A study is a crossed design: every seed of an arm is measured on every test lesion. In radiology
this is a multi-reader multi-case design, with seeds as readers and lesions as cases. Its standard
analysis (Obuchowski and Rockette, Communications in Statistics 24, 1995) gives the variance of the
mean over S seeds of the differences D_s between two arms,

    Var(mean D) = v / S + c

where v is the variance of the D_s between seeds, and c is the covariance of the D_s that results
from measuring them on the same lesions; it is computed from the groups' influences. The interaction
of a seed with a single lesion is part of v and is not counted twice. A bootstrap interval would be
too narrow with three seeds, so each part gets the t quantile of its own degrees of freedom, and the
squares of the two half-widths are added (MOVER: Zou and Donner, Statistics in Medicine 27, 2008). A
single quantile for the sum, with Satterthwaite's degrees of freedom, was tried first and covered 92
to 94 % at three seeds.

The folds of a seed are averaged first and never counted as repetitions: their training splits
overlap, and no unbiased estimate of the variance over folds exists (Bengio and Grandvalet, JMLR 5,
2004). Their test lesions differ, and all of them count in c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import stdtrit

from melanoma_lab.core.formatting import higher_is_better

Floats = NDArray[np.float64]
Verdict = Literal["helps", "hurts", "no evidence", "too few runs"]

ALPHA = 0.05
"""Two-sided level: intervals cover 1 - ALPHA; at most ALPHA of studies call chance an effect."""

POWER = 0.8
"""The power for which ``seeds_needed`` plans: the probability of finding the difference."""

MIN_SEEDS = 3
"""The minimum number of seeds for a verdict: the variance between two is hardly known."""

MOST_SEEDS = 100_000
"""The maximum of ``seeds_needed``; a study that would need more needs more test lesions."""

ROUNDING = 1e-12
"""A standard error below this is a rounding error of zero."""

LEAST_P = 1e-12
"""The smallest p value that is reported; so far out the t distribution is no good model."""


@dataclass(frozen=True)
class MeanOverSeeds:
    """A mean over seeds and its uncertainty.

    All attributes are float64 arrays, shaped as the values without their last axis (the seeds).

    Attributes:
        sd: the standard deviation between the seeds; NaN for one seed.
        seed_variance: v, the variance between seeds; more seeds reduce its part of the error.
        lesion_variance: c, the part of the error's variance that only more test lesions reduce.
        lesion_df: the degrees of freedom of ``lesion_variance``.
        ci_low: the lower end of the interval; NaN for one seed, or if nothing varies at all.
        ci_high: the upper end of the interval; NaN as ``ci_low``.
        p: the two-sided p value of a true mean of zero.
    """

    mean: Floats
    sd: Floats
    seed_variance: Floats
    lesion_variance: Floats
    lesion_df: Floats
    ci_low: Floats
    ci_high: Floats
    p: Floats


def mean_over_seeds(values: ArrayLike, influences: ArrayLike) -> MeanOverSeeds:
    """Compute the mean of a metric, or of a difference, over seeds, with its interval.

    Args:
        values: the value of each of S seeds; float, shape (..., S). If one is NaN, so is the
            result.
        influences: the influence of each of G groups on each seed's value, 0 for a group that the
            seed was not tested on; float, shape (..., S, G).

    Raises:
        ValueError: the shapes do not match, or there is no seed.
    """
    d, u = np.asarray(values, np.float64), np.asarray(influences, np.float64)
    if u.shape[:-1] != d.shape or not d.shape[-1]:
        raise ValueError(
            "Expected values of shape (..., S), S >= 1, and influences of shape (..., S, G). "
            f"Received {d.shape} and {u.shape}."
        )
    n = d.shape[-1]
    mean = d.mean(axis=-1)
    if n == 1:
        undefined = np.full_like(mean, np.nan)
        return MeanOverSeeds(mean, *[undefined] * 7)
    seed_variance = d.var(axis=-1, ddof=1)
    # Sum of products of different seeds: the chance in a lesion that all seeds share.
    shared = np.square(u.sum(axis=-2)) - np.square(u).sum(axis=-2)
    lesion_variance = np.maximum(shared.sum(axis=-1) / (n * (n - 1)), 0)
    # Degrees of freedom of a sum of squares: the effective number of lesions.
    squares = np.square(u.sum(axis=-2))
    with np.errstate(divide="ignore", invalid="ignore"):
        lesion_df = 2 * np.square(squares.sum(axis=-1)) / np.square(squares).sum(axis=-1)
    lesion_df = np.where(np.isnan(lesion_df) & ~np.isnan(mean), 2.0, lesion_df)
    half = _compute_half_width(ALPHA, seed_variance, lesion_variance, n, lesion_df)
    standard_error = np.sqrt(seed_variance / n + lesion_variance)
    half = np.where(standard_error > ROUNDING, half, np.nan)
    return MeanOverSeeds(
        mean=mean,
        sd=np.sqrt(seed_variance),
        seed_variance=seed_variance,
        lesion_variance=lesion_variance,
        lesion_df=lesion_df,
        ci_low=mean - half,
        ci_high=mean + half,
        p=np.where(
            standard_error > ROUNDING,
            _compute_p_value(mean, seed_variance, lesion_variance, n, lesion_df),
            np.nan,
        ),
    )


def _compute_half_width(
    alpha: ArrayLike,
    seed_variance: ArrayLike,
    lesion_variance: ArrayLike,
    n_seeds: int,
    lesion_df: ArrayLike,
) -> Floats:
    """Compute half the width of a 1 - alpha interval."""
    # The function that stats.t.ppf calls, without its checks: they took 50 times as long.
    tail = np.asarray(alpha) / 2
    seeds = np.square(stdtrit(n_seeds - 1, tail)) * np.divide(seed_variance, n_seeds)
    lesions = np.square(stdtrit(lesion_df, tail)) * lesion_variance
    half: Floats = np.sqrt(seeds + lesions)
    return half


def _compute_p_value(
    mean: Floats,
    seed_variance: Floats,
    lesion_variance: Floats,
    n_seeds: int,
    lesion_df: Floats,
) -> Floats:
    """Compute the p value: the alpha at which the interval ends at zero, at least ``LEAST_P``.

    Alpha is found by bisection on a logarithmic scale; the interval widens as alpha falls.
    """
    low, high = np.full_like(mean, np.log(LEAST_P)), np.zeros_like(mean)
    for _ in range(50):
        middle = (low + high) / 2
        half = _compute_half_width(
            np.exp(middle), seed_variance, lesion_variance, n_seeds, lesion_df
        )
        too_narrow = half < np.abs(mean)
        low, high = np.where(too_narrow, low, middle), np.where(too_narrow, middle, high)
    p: Floats = np.exp(high)
    return p


def seeds_needed(difference: float, seed_variance: float, lesion_variance: float) -> int | None:
    """Compute the number of seeds that find a difference of this size with power ``POWER``.

    Args:
        seed_variance: v, the variance between seeds.
        lesion_variance: c, the variance due to the test lesions, for any number of seeds.

    Returns:
        At least ``MIN_SEEDS``; None if not even ``MOST_SEEDS`` suffice, because the variance due to
        the test lesions alone is too large, or if a variance is unknown.
    """
    reach = stats.norm.isf(ALPHA / 2) + stats.norm.isf(1 - POWER)
    left = (difference / reach) ** 2 - lesion_variance
    if not (left > 0 and math.isfinite(seed_variance)):
        return None
    n = max(MIN_SEEDS, math.ceil(seed_variance / left))
    while n <= MOST_SEEDS and not _is_found(difference, seed_variance, lesion_variance, n):
        n += 1 + n // 50
    return n if n <= MOST_SEEDS else None


def _is_found(difference: float, seed_variance: float, lesion_variance: float, n: int) -> bool:
    """Return whether n seeds find a difference with power ``POWER``, assuming many lesions."""
    half = _compute_half_width(ALPHA, seed_variance, lesion_variance, n, np.inf)
    room = half + stats.norm.isf(1 - POWER) * math.sqrt(seed_variance / n + lesion_variance)
    # Slightly less, because the limit is never reached if nearly all variance is the lesions'.
    return bool(abs(difference) >= (1 - 1e-6) * room)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number, in the order given (Holm, Scand. J. Statist. 6, 1979).

    Args:
        p_values: the p values of one family of comparisons; NaN, which stands for a comparison that
            could not be made, stays NaN and is not counted.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted.tolist()


def decide_verdict(metric: str, difference: float, p_holm: float, n_seeds: int) -> Verdict:
    """Decide the verdict on a difference, arm minus reference.

    Args:
        p_holm: the adjusted p value; NaN (nothing varied, or the metric is undefined) counts as no
            evidence.
    """
    if n_seeds < MIN_SEEDS:
        return "too few runs"
    if not p_holm < ALPHA:
        return "no evidence"
    return "helps" if (difference > 0) == higher_is_better(metric) else "hurts"
