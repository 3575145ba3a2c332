"""Influence of each group of images on a metric, from which the metric's variance is estimated.

The influence of an image on a metric is the metric's derivative with respect to the image's
weight, at weights of one (the infinitesimal jackknife: Jaeckel 1972; Efron, The Jackknife, the
Bootstrap and Other Resampling Plans, 1982, chapter 6). Influences of the images of a group add up,
because a group is drawn as a whole, and the sum of the groups' squared influences estimates the
metric's variance over draws of groups. For an AUROC this is DeLong's estimate (Biometrics 44,
1988), clustered as in Obuchowski (Biometrics 53, 1997).

``y_true`` and ``y_score`` are described in :mod:`melanoma_lab.evaluation.metrics` and have at least
one image here. A macro mean leaves out the same classes as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.metrics import (
    compute_class_metrics,
    compute_overall_metrics,
    compute_positive_class_metrics,
)
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

#: The largest share of its class that a group is treated as having.
GREATEST_LEVERAGE = 0.5


@dataclass(frozen=True)
class Estimate:
    """A metric of a run, and the contribution of each group to its uncertainty.

    Attributes:
        value: the metric's value; NaN if undefined.
        groups: G unique group names, sorted; the groups from which the metric is computed.
        influence: float64, shape (G,); influence of each group on the metric.
    """

    value: float
    groups: NDArray[np.str_]
    influence: Floats


def accuracy_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute the influence of each image on the accuracy; shape (n,)."""
    return _compute_mean_influence((y_score.argmax(axis=1) == y_true).astype(np.float64))


def ece_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute the influence of each image on the expected calibration error; shape (n,).

    The sign of each bin's gap is taken as constant, which is right unless the gap is near zero.
    """
    bins = metrics.reliability_bins(y_true, y_score)
    gap = y_score.max(axis=1) - (y_score.argmax(axis=1) == y_true)
    sign = np.sign(np.bincount(bins.index, weights=gap, minlength=len(bins.counts)))
    return _compute_mean_influence(sign[bins.index] * gap)


def sensitivity_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute influences on each class's sensitivity; shape (K, n), NaN for an absent class."""
    predicted, true = _one_hot(y_true, y_score)
    return _compute_share_influence(predicted, among=true)


def specificity_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute influences on each class's specificity; shape (K, n).

    NaN for a class if every image is of it.
    """
    predicted, true = _one_hot(y_true, y_score)
    return _compute_share_influence(~predicted, among=~true)


def macro_f1_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute the influence of each image on the macro F1; shape (n,)."""
    predicted, true = _one_hot(y_true, y_score)
    present = true.any(axis=1)
    predicted, true = predicted[present].astype(float), true[present].astype(float)
    total = (predicted + true).sum(axis=1, keepdims=True)
    f1 = 2 * (predicted * true).sum(axis=1, keepdims=True) / total
    return _mean_of_defined((2 * predicted * true - f1 * (predicted + true)) / total)


def auroc_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute influences on each class's one-vs-rest AUROC; shape (K, n), NaN if undefined."""
    area = metrics.auroc(y_true, y_score)
    ranks = rankdata(y_score, axis=0)
    influence = np.full((y_score.shape[1], len(y_true)), np.nan)
    for k in np.flatnonzero(~np.isnan(area)):
        positive = y_true == k
        n_positive = np.count_nonzero(positive)
        n_negative = len(y_true) - n_positive
        # The share of negatives that a positive outranks, and of positives that outrank a negative.
        above = (ranks[positive, k] - rankdata(y_score[positive, k])) / n_negative
        below = 1 - (ranks[~positive, k] - rankdata(y_score[~positive, k])) / n_positive
        influence[k, positive] = (above - area[k]) / n_positive
        influence[k, ~positive] = (below - area[k]) / n_negative
    return influence


def macro_auroc_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Compute the influence of each image on the macro AUROC; shape (n,)."""
    return _mean_of_defined(auroc_influence(y_true, y_score))


#: The influence functions of the metrics of every split, in the order of reports.
INFLUENCES: Mapping[str, Callable[[Labels, Floats], Floats]] = MappingProxyType(
    {
        "balanced_accuracy": lambda y_true, y_score: _mean_of_defined(
            sensitivity_influence(y_true, y_score)
        ),
        "accuracy": accuracy_influence,
        "macro_auroc": macro_auroc_influence,
        "macro_f1": macro_f1_influence,
        "log_loss": lambda y_true, y_score: _compute_mean_influence(
            metrics.image_log_loss(y_true, y_score)
        ),
        "brier": lambda y_true, y_score: _compute_mean_influence(
            metrics.image_brier_score(y_true, y_score)
        ),
        "ece": ece_influence,
    }
)


def estimate_run(predictions: Predictions, positive_class: str | None) -> dict[str, Estimate]:
    """Estimate all metrics of one run that a study compares.

    Returns:
        Estimates by metric: those of ``INFLUENCES``, ``melanoma_{sensitivity,specificity,auroc}``
        if there is a positive class, and ``sensitivity/<slug>``, all of the evaluated split; and
        ``generalisation_gap``, train minus val accuracy.

    Raises:
        ValueError: the positive class is not one of the classes.
    """
    predictions.require_class(positive_class)
    split = predictions.evaluated
    values = (
        compute_overall_metrics(split)
        | compute_positive_class_metrics(split, positive_class)
        | compute_class_metrics(split)
    )
    scale = _jackknife_scale(split.groups, split.y_true)
    names, index = np.unique(split.group_names, return_inverse=True)
    estimates = {
        metric: Estimate(values[metric], names, _sum_by_group(influence * scale, index, len(names)))
        for metric, influence in _split_influences(split, positive_class).items()
    }
    estimates["generalisation_gap"] = _estimate_gap(predictions)
    return estimates


def _split_influences(split: SplitPredictions, positive_class: str | None) -> dict[str, Floats]:
    """Return the influences of a split's images on every metric; empty arrays if it is empty."""
    y_true, y_score, slugs = split.y_true, split.y_score, split.slugs
    if not y_true.size:
        per_class: Floats = np.empty((len(slugs), 0))
        by_metric = dict.fromkeys(INFLUENCES, np.empty(0))
        by_class = {"sensitivity": per_class, "specificity": per_class, "auroc": per_class}
    else:
        by_metric = {name: function(y_true, y_score) for name, function in INFLUENCES.items()}
        by_class = {
            "sensitivity": sensitivity_influence(y_true, y_score),
            "specificity": specificity_influence(y_true, y_score),
            "auroc": auroc_influence(y_true, y_score),
        }
    if positive_class is not None:
        k = slugs.index(positive_class)
        by_metric |= {f"{positive_class}_{name}": each[k] for name, each in by_class.items()}
    return by_metric | {
        f"sensitivity/{slug}": by_class["sensitivity"][k] for k, slug in enumerate(slugs)
    }


def _estimate_gap(predictions: Predictions) -> Estimate:
    """Estimate the generalisation gap from the groups of the training and validation splits.

    If a group lies in both splits, its images' influences are added in the order of the table.
    """
    train, val = predictions.split("train"), predictions.split("val")
    value = metrics.accuracy(train.y_true, train.y_score) - metrics.accuracy(
        val.y_true, val.y_score
    )
    names_of_splits = predictions.table["split"].to_numpy(str)
    influence = np.zeros(len(names_of_splits))
    for split, sign in ((train, 1.0), (val, -1.0)):
        if len(split):
            scale = _jackknife_scale(split.groups, split.y_true)
            own = sign * accuracy_influence(split.y_true, split.y_score)
            influence[names_of_splits == split.name] = own * scale
    seen = np.isin(names_of_splits, ("train", "val"))
    groups = predictions.table["group"].to_numpy(str)[seen]
    names, index = np.unique(groups, return_inverse=True)
    return Estimate(value, names, _sum_by_group(influence[seen], index, len(names)))


def _sum_by_group(influence: Floats, index: NDArray[np.intp], n_groups: int) -> Floats:
    """Add up the influences of the images of each group; shape (n_groups,)."""
    return np.bincount(index, weights=influence, minlength=n_groups).astype(np.float64)


def _jackknife_scale(groups: Labels, y_true: Labels) -> Floats:
    """Return factors, shape (n,), that turn influences into effects of leaving a group out.

    Leaving out a group that holds a share h of its class moves the class's mean by 1 / (1 - h)
    times its influence. Without this factor, intervals of a class of few lesions are too narrow.
    """
    n_classes = int(y_true.max(initial=0)) + 1
    cell = groups * n_classes + y_true
    share = np.bincount(cell)[cell] / np.bincount(y_true)[y_true] if len(y_true) else np.empty(0)
    return 1 / (1 - np.minimum(share, GREATEST_LEVERAGE))


def _one_hot(y_true: Labels, y_score: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each image is predicted as, and is truly of, each class; two of (K, n)."""
    classes = np.arange(y_score.shape[1])[:, None]
    return y_score.argmax(axis=1) == classes, y_true == classes


def _compute_mean_influence(values: Floats) -> Floats:
    """Compute the influence of each value on the mean of all; shape (n,)."""
    influence: Floats = (values - values.mean()) / len(values)
    return influence


def _compute_share_influence(hit: NDArray[np.bool_], *, among: NDArray[np.bool_]) -> Floats:
    """Compute influences on the share of hits among the chosen images of each row.

    All arrays have the shape (K, n); a row without chosen images is NaN.
    """
    n = among.sum(axis=1, keepdims=True).astype(float)
    n[n == 0] = np.nan
    share = (hit & among).sum(axis=1, keepdims=True) / n
    influence: Floats = among * (hit - share) / n
    return influence


def _mean_of_defined(influences: Floats) -> Floats:
    """Return the mean of the rows without NaN, shape (n,); NaN if there is no such row."""
    defined = influences[~np.isnan(influences).any(axis=1)]
    return defined.mean(axis=0) if len(defined) else np.full(influences.shape[1], np.nan)
