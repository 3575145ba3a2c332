"""How much each group of images moves a metric: what the chance in the test lesions comes from.

The influence of an image on a metric is the metric's derivative with respect to the image's
weight, at weights of one (the infinitesimal jackknife: Jaeckel 1972; Efron, The Jackknife, the
Bootstrap and Other Resampling Plans, 1982, chapter 6). Influences of the images of a group add up,
because a group is drawn as a whole, and the sum of the groups' squared influences estimates the
metric's variance over draws of groups. For an AUROC this is DeLong's estimate (Biometrics 44,
1988), clustered as in Obuchowski (Biometrics 53, 1997).

``y_true`` and ``y_score`` are those of :mod:`melanoma_lab.evaluation.metrics`, with at least one
image; so are the classes that a macro mean leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions
from melanoma_lab.evaluation.run_metrics import (
    compute_class_metrics,
    compute_overall_metrics,
    compute_positive_class_metrics,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

GREATEST_LEVERAGE = 0.5
"""A class that one group makes up alone is treated as if it were half of it."""


@dataclass(frozen=True)
class Estimate:
    """A metric of a run, and what each group contributes to its uncertainty.

    Attributes:
        value: the metric, NaN where it is undefined.
        groups: G unique group names, sorted; the groups that the metric looks at.
        influence: float64, shape (G,); of each group on the metric.
    """

    value: float
    groups: NDArray[np.str_]
    influence: Floats


def accuracy_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the accuracy; shape (n,)."""
    return _of_mean((y_score.argmax(axis=1) == y_true).astype(np.float64))


def log_loss_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the log loss; shape (n,)."""
    return _of_mean(metrics.image_log_loss(y_true, y_score))


def brier_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the Brier score; shape (n,)."""
    return _of_mean(metrics.image_brier_score(y_true, y_score))


def ece_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the calibration error; shape (n,).

    The sign of a bin's gap is taken as given, as it is unless the gap is near zero.
    """
    bins = calibration.reliability_bins(y_true, y_score)
    gap = y_score.max(axis=1) - (y_score.argmax(axis=1) == y_true)
    sign = np.sign(np.bincount(bins.index, weights=gap, minlength=len(bins.counts)))
    return _of_mean(sign[bins.index] * gap)


def sensitivity_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on each class's sensitivity; shape (K, n), NaN for an absent class."""
    decided, truly = _one_hot(y_true, y_score)
    return _of_shares(decided, among=truly)


def specificity_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on each class's specificity; shape (K, n), NaN for a class without others."""
    decided, truly = _one_hot(y_true, y_score)
    return _of_shares(~decided, among=~truly)


def balanced_accuracy_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the balanced accuracy; shape (n,)."""
    return _mean_of_defined(sensitivity_influence(y_true, y_score))


def macro_f1_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the macro F1; shape (n,)."""
    decided, truly = _one_hot(y_true, y_score)
    present = truly.any(axis=1)
    decided, truly = decided[present].astype(float), truly[present].astype(float)
    total = (decided + truly).sum(axis=1, keepdims=True)
    f1 = 2 * (decided * truly).sum(axis=1, keepdims=True) / total
    return _mean_of_defined((2 * decided * truly - f1 * (decided + truly)) / total)


def auroc_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on each class's one-vs-rest AUROC; shape (K, n), NaN where it is undefined."""
    area = metrics.auroc(y_true, y_score)
    ranks = rankdata(y_score, axis=0)
    influence = np.full((y_score.shape[1], len(y_true)), np.nan)
    for k in np.flatnonzero(~np.isnan(area)):
        positive = y_true == k
        n_positive = np.count_nonzero(positive)
        n_negative = len(y_true) - n_positive
        # Share of the other side that an image beats (positives) or is beaten by (negatives).
        above = (ranks[positive, k] - rankdata(y_score[positive, k])) / n_negative
        below = 1 - (ranks[~positive, k] - rankdata(y_score[~positive, k])) / n_positive
        influence[k, positive] = (above - area[k]) / n_positive
        influence[k, ~positive] = (below - area[k]) / n_negative
    return influence


def macro_auroc_influence(y_true: Labels, y_score: Floats) -> Floats:
    """Influences on the macro AUROC; shape (n,)."""
    return _mean_of_defined(auroc_influence(y_true, y_score))


INFLUENCES: Mapping[str, Callable[[Labels, Floats], Floats]] = MappingProxyType(
    {
        "balanced_accuracy": balanced_accuracy_influence,
        "accuracy": accuracy_influence,
        "macro_auroc": macro_auroc_influence,
        "macro_f1": macro_f1_influence,
        "log_loss": log_loss_influence,
        "brier": brier_influence,
        "ece": ece_influence,
    }
)
"""The influences of what is computed of every split, in the order in which it is reported."""


def estimate_run(predictions: Predictions, positive_class: str | None) -> dict[str, Estimate]:
    """Compute everything that a study compares of one run.

    Args:
        predictions: of the run.
        positive_class: slug of the positive class, None where the dataset names none.

    Returns:
        By metric: those of ``INFLUENCES``, ``melanoma_{sensitivity,specificity,auroc}`` where the
        dataset names that class and ``sensitivity/<slug>``, all of the evaluated split, and
        ``generalisation_gap``, train minus val accuracy.

    Raises:
        ValueError: melanoma is none of the classes.
    """
    predictions.require_class(positive_class)
    split = predictions.evaluated
    values = (
        compute_overall_metrics(split)
        | compute_positive_class_metrics(split, positive_class)
        | compute_class_metrics(split)
    )
    scale = _jackknife_scale(split)
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
        by_metric |= {f"melanoma_{name}": each[k] for name, each in by_class.items()}
    return by_metric | {
        f"sensitivity/{slug}": by_class["sensitivity"][k] for k, slug in enumerate(slugs)
    }


def _estimate_gap(predictions: Predictions) -> Estimate:
    """Estimate the generalisation gap; its groups are those of the training and validation split.

    A group that lies in both splits adds up its images' influences in the order of the table.
    """
    train, val = predictions.split("train"), predictions.split("val")
    value = metrics.accuracy(train.y_true, train.y_score) - metrics.accuracy(
        val.y_true, val.y_score
    )
    names_of_splits = predictions.table["split"].to_numpy(str)
    influence = np.zeros(len(names_of_splits))
    for split, sign in ((train, 1.0), (val, -1.0)):
        if len(split):
            own = sign * accuracy_influence(split.y_true, split.y_score) * _jackknife_scale(split)
            influence[names_of_splits == split.name] = own
    seen = np.isin(names_of_splits, ("train", "val"))
    groups = predictions.table["group"].to_numpy(str)[seen]
    names, index = np.unique(groups, return_inverse=True)
    return Estimate(value, names, _sum_by_group(influence[seen], index, len(names)))


def _sum_by_group(influence: Floats, index: NDArray[np.intp], n_groups: int) -> Floats:
    """Influences of the images of each group added up, shape (n_groups,)."""
    return np.bincount(index, weights=influence, minlength=n_groups).astype(np.float64)


def _jackknife_scale(split: SplitPredictions) -> Floats:
    """Return what turns an influence into the effect of leaving the group out; shape (n,).

    Leaving out a group that holds a share h of its class moves the class's mean by 1 / (1 - h)
    times its influence; without this, intervals of a class of a handful of lesions are too narrow.
    """
    y_true = split.y_true
    n_classes = int(y_true.max(initial=0)) + 1
    cell = split.groups * n_classes + y_true
    share = np.bincount(cell)[cell] / np.bincount(y_true)[y_true] if len(y_true) else np.empty(0)
    return 1 / (1 - np.minimum(share, GREATEST_LEVERAGE))


def _one_hot(y_true: Labels, y_score: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each image is decided to be, and truly is, of each class; each of shape (K, n)."""
    classes = np.arange(y_score.shape[1])[:, None]
    return y_score.argmax(axis=1) == classes, y_true == classes


def _of_mean(values: Floats) -> Floats:
    """Influences on the mean of values, shape (n,)."""
    influence: Floats = (values - values.mean()) / len(values)
    return influence


def _of_shares(hit: NDArray[np.bool_], *, among: NDArray[np.bool_]) -> Floats:
    """Influences on the share of hits among the images of each row, shape (K, n)."""
    n = among.sum(axis=1, keepdims=True).astype(float)
    n[n == 0] = np.nan
    share = (hit & among).sum(axis=1, keepdims=True) / n
    influence: Floats = among * (hit - share) / n
    return influence


def _mean_of_defined(influences: Floats) -> Floats:
    """Mean over the rows that are defined, shape (n,); NaN where none is."""
    defined = influences[~np.isnan(influences).any(axis=1)]
    return defined.mean(axis=0) if len(defined) else np.full(influences.shape[1], np.nan)
