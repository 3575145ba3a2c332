"""What a run's figures are worth: each with its 95 % interval over draws of lesions.

One run, so chance in the lesions alone: what another seed would have given is not in it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from melanoma_lab.evaluation import influence, metrics
from melanoma_lab.evaluation.confidence_intervals import (
    LEVEL,
    IntervalEstimate,
    average_proportions,
    compute_mean_interval,
    estimate_proportion,
)
from melanoma_lab.evaluation.ece_interval import ece_interval
from melanoma_lab.evaluation.predictions import split_arrays

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


def estimate_metrics(
    y_true: Labels, y_score: Floats, groups: NDArray[np.int64], melanoma: int | None
) -> dict[str, IntervalEstimate]:
    """The figures of one split that a model is described by.

    Args:
        y_true: int64, shape (n,).
        y_score: float64, shape (n, K), as the network gives them.
        groups: int64, shape (n,), not negative; the group of each image.
        melanoma: index of the melanoma class; None where the dataset names none.

    Returns:
        By the metric's name, in the order of the metrics of a run; NaN where undefined.
    """
    correct = y_score.argmax(axis=1) == y_true
    shares = estimate_sensitivities(y_true, y_score, groups)
    found = {
        "balanced_accuracy": average_proportions(shares),
        "accuracy": estimate_proportion(correct, groups),
        "macro_auroc": _from_influence(
            metrics.macro_auroc(y_true, y_score),
            influence.macro_auroc_influence,
            y_true,
            y_score,
            groups,
        ),
    }
    if melanoma is not None:
        area = float(metrics.auroc(y_true, y_score)[melanoma])
        found["melanoma_sensitivity"] = shares[melanoma]
        found["melanoma_specificity"] = estimate_specificities(y_true, y_score, groups)[melanoma]
        found["melanoma_auroc"] = _from_influence(
            area, lambda *both: influence.auroc_influence(*both)[melanoma], y_true, y_score, groups
        )
    return found


def estimate_calibration(
    y_true: Labels, y_score: Floats, groups: NDArray[np.int64]
) -> dict[str, IntervalEstimate]:
    """What is measured before and after calibration: log loss, Brier score, ECE.

    Args:
        y_true: int64, shape (n,).
        y_score: float64, shape (n, K), calibrated or not.
        groups: int64, shape (n,), not negative; the group of each image.
    """
    if not len(y_true):
        return dict.fromkeys(
            ("log_loss", "brier", "ece"), estimate_proportion(np.zeros(0, bool), groups)
        )
    terms = np.column_stack(
        [
            metrics.image_log_loss(y_true, y_score),
            metrics.image_brier_score(y_true, y_score),
        ]
    )
    lows, highs = compute_mean_interval(terms, groups)
    means = terms.mean(axis=0)
    return {
        "log_loss": IntervalEstimate(float(means[0]), max(float(lows[0]), 0.0), float(highs[0])),
        "brier": IntervalEstimate(float(means[1]), max(float(lows[1]), 0.0), float(highs[1])),
        "ece": ece_interval(y_true, y_score, groups),
    }


def estimate_sensitivities(
    y_true: Labels, y_score: Floats, groups: NDArray[np.int64]
) -> list[IntervalEstimate]:
    """Each class's share of images that are decided to be of it."""
    decided = y_score.argmax(axis=1)
    of = [y_true == k for k in range(y_score.shape[1])]
    return [estimate_proportion((decided == k)[of[k]], groups[of[k]]) for k in range(len(of))]


def estimate_specificities(
    y_true: Labels, y_score: Floats, groups: NDArray[np.int64]
) -> list[IntervalEstimate]:
    """Each class's share of other classes' images that are not decided to be of it."""
    decided = y_score.argmax(axis=1)
    others = [y_true != k for k in range(y_score.shape[1])]
    return [
        estimate_proportion((decided != k)[others[k]], groups[others[k]])
        for k in range(len(others))
    ]


def get_split_arrays(table: pd.DataFrame, split: str) -> tuple[Labels, Floats, NDArray[np.int64]]:
    """A split of a predictions table as y_true, y_score and groups, which the others here take."""
    groups = pd.factorize(table.loc[table["split"] == split, "group"])[0].astype(np.int64)
    return (*split_arrays(table, split), groups)


def _from_influence(
    value: float,
    influences: Callable[[Labels, Floats], Floats],
    y_true: Labels,
    y_score: Floats,
    groups: NDArray[np.int64],
) -> IntervalEstimate:
    """A metric between 0 and 1 with an interval from what each group contributes to its variance.

    DeLong's for an AUROC, clustered (Obuchowski, Biometrics 53, 1997), on the logit scale, where
    an AUROC near 1 keeps its interval below 1 (Pepe, The Statistical Evaluation of Medical Tests,
    2003, 5.2).
    """
    n_groups = len(np.unique(groups))
    if not 0 < value < 1 or n_groups < 2:  # NaN fails both
        return IntervalEstimate(value, np.nan, np.nan)
    by_group = np.bincount(groups, weights=influences(y_true, y_score))
    error = np.sqrt(n_groups / (n_groups - 1) * np.square(by_group).sum())
    half = stats.t.ppf((1 + LEVEL) / 2, n_groups - 1) * error / (value * (1 - value))
    low, high = expit(logit(value) - half), expit(logit(value) + half)
    return IntervalEstimate(value, float(low), float(high))
