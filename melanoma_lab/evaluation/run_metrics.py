"""The metrics of a finished run, computed from its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions

Metric = Callable[[NDArray[np.int64], NDArray[np.float64]], float]
"""A function of y_true, int64 (n,), and y_score, float64 (n, K)."""

SPLIT_METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_auroc": metrics.macro_auroc,
        "macro_f1": metrics.macro_f1,
        "log_loss": metrics.log_loss,
        "brier": metrics.brier,
        "ece": calibration.ece,
    }
)
"""The metrics of every split, by their name after ``<split>/``."""

CLASS_METRICS = MappingProxyType(
    {"sensitivity": metrics.sensitivity, "specificity": metrics.specificity}
)
"""The metrics of every class of the test split, named ``test/<name>/<slug>``."""


def compute_run_metrics(
    predictions: Predictions, positive_class: str | None, *, splits: Sequence[str] | None = None
) -> dict[str, float]:
    """Compute all metrics of a run.

    Args:
        predictions: predictions of the saved weights in inference mode; splits may be empty.
        positive_class: slug of the positive class; None if the dataset names none.
        splits: the splits to compute metrics for, which must include train and val; None: all.

    Returns:
        ``<split>/<metric>`` for each split and each of ``SPLIT_METRICS``; ``val/`` and
        ``test/melanoma_{sensitivity,specificity,auroc}`` if there is a positive class;
        ``test/sensitivity/<slug>`` and ``test/specificity/<slug>``; and ``generalisation_gap``,
        train/accuracy - val/accuracy. Undefined values are NaN.

    Raises:
        ValueError: the positive class is not one of the classes.
    """
    predictions.require_class(positive_class)
    result: dict[str, float] = {}
    for split in splits or SPLITS:
        result |= compute_split_metrics(predictions.split(split), positive_class)
    result["generalisation_gap"] = result["train/accuracy"] - result["val/accuracy"]
    return result


def compute_split_metrics(split: SplitPredictions, positive_class: str | None) -> dict[str, float]:
    """Compute the metrics of one split, with the names of ``compute_run_metrics``.

    Args:
        split: the predictions of the split, which may be empty.
        positive_class: slug of the positive class; None if the dataset names none.
    """
    measured = compute_overall_metrics(split)
    if split.name != "train":
        measured |= compute_positive_class_metrics(split, positive_class)
    if split.name == "test":
        measured |= compute_class_metrics(split)
    return {f"{split.name}/{name}": value for name, value in measured.items()}


def compute_overall_metrics(split: SplitPredictions) -> dict[str, float]:
    """Compute each of ``SPLIT_METRICS`` for one split."""
    return {name: metric(split.y_true, split.y_score) for name, metric in SPLIT_METRICS.items()}


def compute_positive_class_metrics(
    split: SplitPredictions, positive_class: str | None
) -> dict[str, float]:
    """Compute ``melanoma_{sensitivity,specificity,auroc}``; nothing without a positive class."""
    if positive_class is None:
        return {}
    k = split.slugs.index(positive_class)
    return {
        "melanoma_sensitivity": float(metrics.sensitivity(split.y_true, split.y_score)[k]),
        "melanoma_specificity": float(metrics.specificity(split.y_true, split.y_score)[k]),
        "melanoma_auroc": float(metrics.auroc(split.y_true, split.y_score)[k]),
    }


def compute_class_metrics(split: SplitPredictions) -> dict[str, float]:
    """Compute each of ``CLASS_METRICS`` for every class, named ``<name>/<slug>``."""
    return {
        f"{name}/{slug}": float(value)
        for name, metric in CLASS_METRICS.items()
        for slug, value in zip(split.slugs, metric(split.y_true, split.y_score), strict=True)
    }
