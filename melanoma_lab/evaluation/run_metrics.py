"""A predictions table as the metrics that a finished run shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.predictions import check_predictions, slugs_of, split_arrays

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
"""What is computed of every split, by the name it has after ``<split>/``."""

CLASS_METRICS = MappingProxyType(
    {"sensitivity": metrics.sensitivity, "specificity": metrics.specificity}
)
"""What is computed of every class of the test split: ``test/<name>/<slug>``."""


def compute_run_metrics(
    table: pd.DataFrame, melanoma: str | None, *, splits: Sequence[str] | None = None
) -> dict[str, float]:
    """Compute all metrics of a run from its predictions table.

    Args:
        table: Predictions of the kept weights in inference mode; splits may be empty.
        melanoma: Slug of the melanoma class, None where the dataset names none.
        splits: Those that were measured, train and val among them; None is all. Of the others
            nothing is computed.

    Returns:
        ``<split>/<metric>`` for each split and each of ``SPLIT_METRICS``;
        ``val/`` and ``test/melanoma_{sensitivity,specificity,auroc}`` if melanoma is named;
        ``test/sensitivity/<slug>`` and ``test/specificity/<slug>``; and ``generalisation_gap``,
        train/accuracy - val/accuracy. What is undefined is NaN.

    Raises:
        ValueError: If the table fails its check, or melanoma is no class of it.
    """
    check_predictions(table)
    slugs = slugs_of(table)
    if melanoma is not None and melanoma not in slugs:
        raise ValueError(f"Expected melanoma to be None or one of {slugs}. Received {melanoma!r}.")

    result: dict[str, float] = {}
    for split in splits or SPLITS:
        result |= compute_split_metrics(table, split, melanoma)
    result["generalisation_gap"] = result["train/accuracy"] - result["val/accuracy"]
    return result


def compute_split_metrics(
    table: pd.DataFrame, split: str, melanoma: str | None
) -> dict[str, float]:
    """What ``compute_run_metrics`` computes of one split, by the same names.

    Args:
        table: a checked predictions table.
        split: one of its splits.
        melanoma: slug of the melanoma class, None where the dataset names none.
    """
    slugs = slugs_of(table)
    arrays = split_arrays(table, split)
    measured = {name: metric(*arrays) for name, metric in SPLIT_METRICS.items()}
    if split != "train":
        measured |= compute_positive_class_metrics(*arrays, slugs, melanoma)
    if split == "test":
        measured |= compute_class_metrics(*arrays, slugs)
    return {f"{split}/{name}": value for name, value in measured.items()}


def compute_positive_class_metrics(
    y_true: NDArray[np.int64],
    y_score: NDArray[np.float64],
    slugs: Sequence[str],
    melanoma: str | None,
) -> dict[str, float]:
    """``melanoma_{sensitivity,specificity,auroc}`` of one split; nothing if it is not named."""
    if melanoma is None:
        return {}
    k = slugs.index(melanoma)
    return {
        "melanoma_sensitivity": float(metrics.sensitivity(y_true, y_score)[k]),
        "melanoma_specificity": float(metrics.specificity(y_true, y_score)[k]),
        "melanoma_auroc": float(metrics.auroc(y_true, y_score)[k]),
    }


def compute_class_metrics(
    y_true: NDArray[np.int64], y_score: NDArray[np.float64], slugs: Sequence[str]
) -> dict[str, float]:
    """Each of ``CLASS_METRICS`` of one split, by ``<name>/<slug>``."""
    return {
        f"{name}/{slug}": float(value)
        for name, metric in CLASS_METRICS.items()
        for slug, value in zip(slugs, metric(y_true, y_score), strict=True)
    }


def find_absent_classes(table: pd.DataFrame, splits: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The slugs of the classes that a split has no image of, for the splits that lack some."""
    slugs = slugs_of(table)
    absent = {
        split: metrics.absent_classes(split_arrays(table, split)[0], slugs) for split in splits
    }
    return {split: missing for split, missing in absent.items() if missing}
