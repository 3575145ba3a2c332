"""The 95 % intervals of the metrics of one run, with one method for each metric.

The intervals of one run cover only chance in its lesions, not the variation between seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from melanoma_lab.evaluation import influence, metrics
from melanoma_lab.evaluation.confidence_intervals import (
    LEVEL,
    UNDEFINED,
    IntervalEstimate,
    average_proportions,
    compute_mean_interval,
    estimate_proportion,
)
from melanoma_lab.evaluation.ece_interval import ece_interval
from melanoma_lab.evaluation.predictions import SplitPredictions

Floats = NDArray[np.float64]


def estimate_metrics(
    split: SplitPredictions, positive_class: str | None
) -> dict[str, IntervalEstimate]:
    """Estimate the metrics of one split that describe a model.

    Args:
        split: the predictions, with the probabilities that the network returned.
        positive_class: slug of the positive class; None if the dataset names none.

    Returns:
        Estimates by the metric's name, in the order of the metrics of a run; NaN if undefined.
    """
    names = ("balanced_accuracy", "accuracy", "macro_auroc")
    found = {name: INTERVALS[name](split) for name in names}
    if positive_class is not None:
        for name, estimate in CLASS_INTERVALS.items():
            found[f"melanoma_{name}"] = estimate(split, positive_class)
    return found


def estimate_calibration(split: SplitPredictions) -> dict[str, IntervalEstimate]:
    """Estimate the metrics of calibration: log loss, Brier score and ECE."""
    return {name: INTERVALS[name](split) for name in ("log_loss", "brier", "ece")}


def _estimate_macro_auroc(split: SplitPredictions) -> IntervalEstimate:
    return _from_influence(
        metrics.macro_auroc(split.y_true, split.y_score),
        lambda: influence.macro_auroc_influence(split.y_true, split.y_score),
        split.groups,
    )


def _estimate_losses(split: SplitPredictions) -> list[IntervalEstimate]:
    """Estimate log loss and Brier score, which are not below zero.

    Both are computed at once, because NumPy adds up one of two columns in another order than a
    single column, so that the last bits would differ.
    """
    if not len(split):
        return [UNDEFINED, UNDEFINED]
    terms = np.column_stack(
        [
            metrics.image_log_loss(split.y_true, split.y_score),
            metrics.image_brier_score(split.y_true, split.y_score),
        ]
    )
    bounds = zip(terms.mean(axis=0), *compute_mean_interval(terms, split.groups), strict=True)
    return [
        IntervalEstimate(float(mean), max(float(low), 0.0), float(high))
        for mean, low, high in bounds
    ]


def estimate_sensitivity(split: SplitPredictions, slug: str) -> IntervalEstimate:
    """Estimate the share of a class's images that are predicted to be of it."""
    k = split.slugs.index(slug)
    chosen = split.y_true == k
    return estimate_proportion((split.predicted == k)[chosen], split.groups[chosen])


def estimate_specificity(split: SplitPredictions, slug: str) -> IntervalEstimate:
    """Estimate the share of other classes' images that are not predicted to be of a class."""
    k = split.slugs.index(slug)
    chosen = split.y_true != k
    return estimate_proportion((split.predicted != k)[chosen], split.groups[chosen])


def _estimate_auroc(split: SplitPredictions, slug: str) -> IntervalEstimate:
    k = split.slugs.index(slug)
    return _from_influence(
        float(metrics.auroc(split.y_true, split.y_score)[k]),
        lambda: influence.auroc_influence(split.y_true, split.y_score)[k],
        split.groups,
    )


INTERVALS: Mapping[str, Callable[[SplitPredictions], IntervalEstimate]] = MappingProxyType(
    {
        "balanced_accuracy": lambda split: average_proportions(
            [estimate_sensitivity(split, slug) for slug in split.slugs]
        ),
        "accuracy": lambda split: estimate_proportion(split.correct, split.groups),
        "macro_auroc": _estimate_macro_auroc,
        "log_loss": lambda split: _estimate_losses(split)[0],
        "brier": lambda split: _estimate_losses(split)[1],
        "ece": lambda split: ece_interval(split.y_true, split.y_score, split.groups),
    }
)
"""The method for each metric of a split. A study of several runs has its own, ``statistics``."""

CLASS_INTERVALS: Mapping[str, Callable[[SplitPredictions, str], IntervalEstimate]] = (
    MappingProxyType(
        {
            "sensitivity": estimate_sensitivity,
            "specificity": estimate_specificity,
            "auroc": _estimate_auroc,
        }
    )
)
"""The method for each metric of one class; its second argument is the class's slug."""


def _from_influence(
    value: float, influences: Callable[[], Floats], groups: NDArray[np.int64]
) -> IntervalEstimate:
    """Estimate a metric between 0 and 1 from the contribution of each group to its variance.

    For an AUROC this is DeLong's interval, clustered by group (Obuchowski, Biometrics 53, 1997). It
    is computed on the logit scale, so that the interval of an AUROC near 1 stays below 1 (Pepe, The
    Statistical Evaluation of Medical Tests, 2003, 5.2).

    Args:
        value: the metric.
        influences: returns the influence of each image, float64, shape (n,); called only if the
            interval is defined.
        groups: int64, shape (n,); the group of each image.
    """
    n_groups = len(np.unique(groups))
    if not 0 < value < 1 or n_groups < 2:  # NaN fails both
        return IntervalEstimate(value, np.nan, np.nan)
    by_group = np.bincount(groups, weights=influences())
    error = np.sqrt(n_groups / (n_groups - 1) * np.square(by_group).sum())
    half = stats.t.ppf((1 + LEVEL) / 2, n_groups - 1) * error / (value * (1 - value))
    low, high = expit(logit(value) - half), expit(logit(value) + half)
    return IntervalEstimate(value, float(low), float(high))
