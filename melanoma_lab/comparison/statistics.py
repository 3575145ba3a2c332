"""Is a difference between two arms more than chance in the seeds and in the test lesions?

A study is a crossed design: every seed of an arm meets every test lesion. Radiology knows it as
multi-reader multi-case, with seeds for readers and lesions for cases, and its standard analysis
(Obuchowski and Rockette, Communications in Statistics 24, 1995) gives the variance of the mean
over S seeds of the differences D_s between two arms,

    Var(mean D) = v / S + c

where v is the variance of the D_s between seeds, and c the covariance that the D_s have because
they are measured on the same lesions, from the groups' influences. What a seed makes of one lesion
in particular is in v already and is not counted twice. A bootstrap would be too narrow with three
seeds, so each part gets the t quantile of its own degrees of freedom and the two half-widths are
added in squares (MOVER: Zou and Donner, Statistics in Medicine 27, 2008). One quantile for the
sum, with Satterthwaite's degrees of freedom, was tried first and covered 92 to 94 % at three seeds.

Folds of one seed are averaged before anything else and never counted as repetitions: their training
splits overlap, and no unbiased estimate of the variance over folds exists (Bengio and Grandvalet,
JMLR 5, 2004). Their test lesions are different ones and all count in c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from melanoma_lab.core.metric_names import higher_is_better

Floats = NDArray[np.float64]
Verdict = Literal["helps", "hurts", "no evidence", "too few runs"]

ALPHA = 0.05
"""Two-sided; intervals cover 1 - ALPHA, and no more than ALPHA of studies call chance an effect."""

POWER = 0.8
"""Chance of finding a difference that ``seeds_needed`` plans for."""

MIN_SEEDS = 3
"""Fewest seeds from which a verdict is given: the variance of two says next to nothing."""

MOST_SEEDS = 100_000
"""A number of seeds that nobody trains: a study that needs more needs other test lesions."""

ROUNDING = 1e-12
"""A standard error below this is what floating point makes of none at all."""

LEAST_P = 1e-12
"""Smaller p values are reported as this: no t distribution holds that far out."""


@dataclass(frozen=True)
class MeanOverSeeds:
    """A mean over seeds and its uncertainty; arrays of the shape of all axes but the last.

    Attributes:
        mean: over the seeds.
        sd: between the seeds; NaN with one.
        seed_variance: v, the part of the variance that more seeds reduce, of a single seed.
        lesion_variance: c, the part that only more test lesions reduce.
        lesion_df: degrees of freedom of the latter.
        ci_low: lower end of the interval; NaN with one seed, or where nothing varies at all.
        ci_high: upper end of the interval.
        p: two-sided, of a true mean of zero.
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
    """The mean of a metric, or of a difference, over seeds, with its interval.

    Args:
        values: float, shape (..., S); of each seed. With a NaN among them, all is NaN.
        influences: float, shape (..., S, G); of each group on each seed's value, zero for a group
            that the seed was not tested on.

    Raises:
        ValueError: the shapes do not fit each other.
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
    # Products of different seeds only: a lesion's chance that all seeds share.
    shared = np.square(u.sum(axis=-2)) - np.square(u).sum(axis=-2)
    lesion_variance = np.maximum(shared.sum(axis=-1) / (n * (n - 1)), 0)
    # The shared part of a sum of squares has as many degrees of freedom as lesions that matter.
    squares = np.square(u.sum(axis=-2))
    with np.errstate(divide="ignore", invalid="ignore"):
        lesion_df = 2 * np.square(squares.sum(axis=-1)) / np.square(squares).sum(axis=-1)
    lesion_df = np.where(np.isnan(lesion_df) & ~np.isnan(mean), 2.0, lesion_df)
    half = _half_width(ALPHA, seed_variance, lesion_variance, n, lesion_df)
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
            _p_value(mean, seed_variance, lesion_variance, n, lesion_df),
            np.nan,
        ),
    )


def _half_width(
    alpha: ArrayLike,
    seed_variance: ArrayLike,
    lesion_variance: ArrayLike,
    n_seeds: int,
    lesion_df: ArrayLike,
) -> Floats:
    """Half the width of a 1 - alpha interval."""
    upper = np.asarray(alpha) / 2
    seeds = np.square(stats.t.isf(upper, n_seeds - 1)) * np.divide(seed_variance, n_seeds)
    lesions = np.square(stats.t.isf(upper, lesion_df)) * lesion_variance
    half: Floats = np.sqrt(seeds + lesions)
    return half


def _p_value(
    mean: Floats,
    seed_variance: Floats,
    lesion_variance: Floats,
    n_seeds: int,
    lesion_df: Floats,
) -> Floats:
    """The alpha at which the interval ends at zero, at least ``LEAST_P``.

    By bisection, on a logarithmic scale: the interval widens as alpha falls.
    """
    low, high = np.full_like(mean, np.log(LEAST_P)), np.zeros_like(mean)
    for _ in range(50):
        middle = (low + high) / 2
        half = _half_width(np.exp(middle), seed_variance, lesion_variance, n_seeds, lesion_df)
        too_narrow = half < np.abs(mean)
        low, high = np.where(too_narrow, low, middle), np.where(too_narrow, middle, high)
    p: Floats = np.exp(high)
    return p


def seeds_needed(difference: float, seed_variance: float, lesion_variance: float) -> int | None:
    """How many seeds would find a difference of this size with a chance of ``POWER``.

    Args:
        difference: true mean difference.
        seed_variance: v, of a single seed.
        lesion_variance: c, of the mean over any number of seeds.

    Returns:
        At least ``MIN_SEEDS``; None where none up to ``MOST_SEEDS`` would do, because the chance in
        the test lesions alone is too large, or where that cannot be said.
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
    """Whether n seeds find a difference with a chance of ``POWER``, many lesions assumed."""
    half = _half_width(ALPHA, seed_variance, lesion_variance, n, np.inf)
    room = half + stats.norm.isf(1 - POWER) * math.sqrt(seed_variance / n + lesion_variance)
    # A hair less: where the lesions' part is all but everything, the limit is never reached.
    return bool(abs(difference) >= (1 - 1e-6) * room)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number, in the order given (Holm, Scand. J. Statist. 6, 1979).

    Args:
        p_values: of one family of comparisons; NaN, a comparison that could not be made, stays NaN
            and is not counted.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted.tolist()


def decide_verdict(metric: str, difference: float, p_holm: float, n_seeds: int) -> Verdict:
    """The verdict on a difference, arm minus reference.

    Args:
        metric: its name; ``higher_is_better`` says which way is better.
        difference: mean over the seeds.
        p_holm: adjusted; NaN, where nothing varied or the metric is undefined, is no evidence.
        n_seeds: that both have.
    """
    if n_seeds < MIN_SEEDS:
        return "too few runs"
    if not p_holm < ALPHA:
        return "no evidence"
    return "helps" if (difference > 0) == higher_is_better(metric) else "hurts"
