"""The metrics of a finished run, and whether it learned anything or is no better than chance.

Both are computed from its predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.formatting import format_percent
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

ONE_ANSWER_SHARE = 0.99
"""Share of images predicted as one class from which on the network always predicts that class."""

MIN_EXPLAINED = 0.01
"""The least explained share of the labels' entropy (McFadden's pseudo R squared) that shows
learning.
"""

MIN_SKILL = 0.05
"""The least chance-adjusted balanced accuracy that shows learning: 0 is chance, 1 is perfect."""


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


@dataclass(frozen=True)
class ChanceCheck:
    """Result of the check of one run.

    Attributes:
        verdict: ``learned``, or ``at_chance`` if the run collapsed.
        reason: one sentence for the user.
    """

    verdict: Literal["learned", "at_chance"]
    reason: str


def compare_with_chance(predictions: Predictions) -> ChanceCheck:
    """Decide from a run's predictions whether it learned or stayed at chance.

    The check uses the training images in inference mode. Every network that learns anything is
    better than chance on them, so a collapsed run can be distinguished from one that does not
    generalise. (A run whose loss is no longer finite has diverged; the training loop reports that.)

    It stayed at chance if there is only one class; if at least ``ONE_ANSWER_SHARE`` of the training
    images are predicted as one class, unless that many truly are; or if neither its probabilities
    nor its predicted classes carry information about the images:

    * Probabilities: the log loss is less than the share ``MIN_EXPLAINED`` below the entropy of the
      classes, which is the log loss of the best constant prediction. This must be so both with
      images weighted equally and with classes weighted equally (whose entropy is the logarithm of
      their number): a network trained on balanced classes has another prior than the images, and
      may do worse than their prior although it distinguishes them well.
    * Predicted classes: (B - 1/K) / (1 - 1/K) is below ``MIN_SKILL``, for a balanced accuracy B
      over K present classes. An overconfident network may fail the first and pass the second.

    Args:
        predictions: predictions of training images; those of other splits are ignored.

    Raises:
        ValueError: there are no training images.
    """
    training = predictions.split("train")
    y_true, y_score, slugs = training.y_true, training.y_score, training.slugs
    if not y_true.size:
        raise ValueError("Expected a predictions table with training rows. Received none.")
    class_counts = np.bincount(y_true, minlength=len(slugs))
    class_shares = class_counts / len(y_true)
    n_present = np.count_nonzero(class_counts)
    if n_present == 1:
        only = slugs[int(class_counts.argmax())]
        return ChanceCheck(
            "at_chance", f"every training image is {only}: there are no classes to distinguish."
        )

    predicted_shares = np.bincount(training.predicted, minlength=len(slugs)) / len(y_true)
    k = int(predicted_shares.argmax())
    if predicted_shares[k] >= ONE_ANSWER_SHARE > class_shares[k]:
        return ChanceCheck(
            "at_chance",
            f"{format_percent(predicted_shares[k])} of the training images are predicted as "
            f"{slugs[k]}; {format_percent(class_shares[k])} truly are.",
        )

    losses = metrics.image_log_loss(y_true, y_score)
    entropy = _entropy(class_shares)
    class_losses = [losses[y_true == k].mean() for k in np.flatnonzero(class_counts)]
    explained = max(
        1 - losses.mean() / entropy,  # images weighted equally
        1 - np.mean(class_losses) / np.log(n_present),  # classes weighted equally
    )
    balanced_accuracy = metrics.balanced_accuracy(y_true, y_score)
    chance = 1 / n_present
    skill = (balanced_accuracy - chance) / (1 - chance)
    decisions = (
        f"balanced accuracy on the training images is {format_percent(balanced_accuracy)} "
        f"({format_percent(chance)} is chance)"
    )
    if explained < MIN_EXPLAINED and skill < MIN_SKILL:
        return ChanceCheck(
            "at_chance",
            f"{decisions} and log loss {losses.mean():.3f}; predicting the class frequencies for "
            f"every image gives {entropy:.3f}.",
        )
    return ChanceCheck("learned", f"{decisions}.")


def _entropy(shares: NDArray[np.float64]) -> float:
    """Return the Shannon entropy of class shares that sum to one, in nats."""
    present = shares[shares > 0]
    return float(-np.sum(present * np.log(present)))
