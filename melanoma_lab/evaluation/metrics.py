"""Metrics of a multi-class classifier as small pure functions, and the metrics of a run.

In all functions, ``y_true`` is int64 of shape (n,), class indices from 0 to K - 1, and ``y_score``
is float64 of shape (n, K), probabilities that sum to one. The predicted class of an image is the
one with the highest probability; of several equal ones, it is the first in class order.

Undefined metrics are NaN, never 0 or 1: every metric of no images, the sensitivity of a class that
is absent from ``y_true``, an AUROC without both positives and negatives. A macro mean is taken over
the classes for which its term is defined; ``SplitPredictions.absent_classes`` are left out.

The metrics are those of the ISIC challenges (``isic-challenge-scoring``), which differ in three
ways: there an undefined sensitivity counts as 1, a tie is always wrong, and sensitivity and
specificity of a class use a threshold of 0.5 on its probability instead of the highest probability.

Functions raise ValueError if the shapes or the labels are not as described.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from melanoma_lab.core.formatting import name_positive_class_metrics
from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions

#: Lower limit of probabilities before the logarithm is taken, as in Keras's loss.
#:
#: One confident mistake then adds at most 16.1 nats instead of making the mean infinite.
LOG_LOSS_EPSILON = 1e-7
#: Bins of equal width over 0 to 1, as in Guo et al., ICML 2017.
N_BINS = 15


def check_arrays(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> None:
    """Refuse arrays that would silently give a wrong number by broadcasting or indexing."""
    if y_true.ndim != 1 or y_score.ndim != 2 or len(y_true) != len(y_score):
        raise ValueError(
            "Expected y_true of shape (n,) and y_score of shape (n, K). "
            f"Received {y_true.shape} and {y_score.shape}."
        )
    if y_true.size and not 0 <= y_true.min() <= y_true.max() < y_score.shape[1]:
        raise ValueError(
            f"Expected labels from 0 to {y_score.shape[1] - 1}. "
            f"Received labels from {y_true.min()} to {y_true.max()}."
        )
    if not np.isfinite(y_score).all():
        raise ValueError("Expected finite scores. Received NaN or infinite ones.")


def confusion_matrix(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count images by true class (row) and predicted class (column); int64, shape (K, K)."""
    check_arrays(y_true, y_score)
    k = y_score.shape[1]
    cells = y_true * k + y_score.argmax(axis=1)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def accuracy(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the share of images that are classified correctly."""
    counts = confusion_matrix(y_true, y_score)
    return float(_ratio(np.trace(counts), counts.sum()))


def sensitivity(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each class's images that are predicted to be of it; shape (K,).

    Also called recall or true positive rate. NaN if the class is absent from y_true.
    """
    counts = confusion_matrix(y_true, y_score)
    return _ratio(np.diag(counts), counts.sum(axis=1))


def specificity(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each class, the share of other images that are not predicted to be of it.

    Also called true negative rate. Shape (K,); NaN if every image is of the class.
    """
    counts = confusion_matrix(y_true, y_score)
    negatives = counts.sum() - counts.sum(axis=1)
    false_positives = counts.sum(axis=0) - np.diag(counts)
    return _ratio(negatives - false_positives, negatives)


def balanced_accuracy(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the mean sensitivity of the classes in y_true; chance is 1 / number of these classes.

    This is the main metric of the ISIC 2018 and 2019 classification challenges.
    """
    return _mean_of_defined(sensitivity(y_true, y_score))


def macro_f1(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the mean over the classes in y_true of F1 = 2 TP / (2 TP + FP + FN)."""
    counts = confusion_matrix(y_true, y_score)
    present = counts.sum(axis=1) > 0
    f1 = _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))
    return _mean_of_defined(f1[present])


def auroc(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under each class's one-vs-rest ROC curve; shape (K,).

    This is the probability that an image of the class has a higher score for it than an image of
    another class, where ties count one half. It is computed from mid-ranks, for all classes at
    once, as the Mann-Whitney U statistic over its maximum (Hanley and McNeil, Radiology 143, 1982),
    and equals the area under the trapezoidal curve. NaN if a class has no positives or no
    negatives.
    """
    check_arrays(y_true, y_score)
    positive = y_true[:, None] == np.arange(y_score.shape[1])
    n_positive = positive.sum(axis=0)
    rank_sums = np.where(positive, rankdata(y_score, axis=0), 0.0).sum(axis=0)
    wins = rank_sums - n_positive * (n_positive + 1) / 2
    return _ratio(wins, n_positive * (len(y_true) - n_positive))


def macro_auroc(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the mean one-vs-rest AUROC of the classes that have positives and negatives."""
    return _mean_of_defined(auroc(y_true, y_score))


def log_loss(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the mean negative natural logarithm of the true class's probability, in nats.

    Probabilities below ``LOG_LOSS_EPSILON`` are raised to it.
    """
    return _mean_of_defined(image_log_loss(y_true, y_score))


def image_log_loss(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the terms of ``log_loss``: one per image, in nats, shape (n,)."""
    check_arrays(y_true, y_score)
    p_true = y_score[np.arange(len(y_true)), y_true]
    # The upper limit avoids a negative loss if a float32 probability was rounded to above one.
    return -np.log(np.clip(p_true, LOG_LOSS_EPSILON, 1.0))


def brier(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Return the Brier score: squared error summed over classes, mean over images; 0 (best) to 2.

    This is Brier's definition (Monthly Weather Review 78, 1950): for two classes it is twice the
    common score of a single probability.
    """
    return _mean_of_defined(image_brier_score(y_true, y_score))


def image_brier_score(
    y_true: NDArray[np.int64], y_score: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the terms of ``brier``: one per image, shape (n,)."""
    check_arrays(y_true, y_score)
    one_hot = np.eye(y_score.shape[1])[y_true]
    scores: NDArray[np.float64] = np.square(y_score - one_hot).sum(axis=1)
    return scores


@dataclass(frozen=True)
class ReliabilityBins:
    """Images binned by confidence, the probability of their predicted class.

    Attributes:
        edges: float64, shape (bins + 1,), from 0 to 1. A bin contains its upper edge; only the
            first bin also contains its lower edge.
        index: intp, shape (n,); the bin of each image.
        counts: int64, shape (bins,); number of images in each bin.
        correct: int64, shape (bins,); number of correctly classified images in each bin.
        confidence: float64, shape (bins,); mean confidence, NaN in an empty bin.
        accuracy: float64, shape (bins,); share of correct images, NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    index: NDArray[np.intp]
    counts: NDArray[np.int64]
    correct: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability_bins(
    y_true: NDArray[np.int64], y_score: NDArray[np.float64], n_bins: int = N_BINS
) -> ReliabilityBins:
    """Bin images by the probability of their predicted class, in bins of equal width."""
    check_arrays(y_true, y_score)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    top = y_score.max(axis=1)
    hit = y_score.argmax(axis=1) == y_true
    # Only the inner edges are searched, so that 0, and a float32 just above 1, get a bin.
    index = np.searchsorted(edges[1:-1], top, side="left")
    counts = np.bincount(index, minlength=n_bins)
    correct = np.bincount(index[hit], minlength=n_bins)
    confidence = np.full(n_bins, np.nan)
    accuracy = np.full(n_bins, np.nan)
    filled = counts > 0
    confidence[filled] = np.bincount(index, weights=top, minlength=n_bins)[filled] / counts[filled]
    accuracy[filled] = correct[filled] / counts[filled]
    return ReliabilityBins(edges, index, counts, correct, confidence, accuracy)


def ece(y_true: NDArray[np.int64], y_score: NDArray[np.float64], n_bins: int = N_BINS) -> float:
    """Return the expected calibration error of the predicted class, 0 (best) to 1.

    It is the mean over images of the gap between accuracy and mean confidence in the image's bin
    (Naeini et al., AAAI 2015; Guo et al., ICML 2017). NaN for no images.
    """
    bins = reliability_bins(y_true, y_score, n_bins)
    n = bins.counts.sum()
    if n == 0:
        return float("nan")
    filled = bins.counts > 0
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    return float(np.sum(bins.counts[filled] * gaps) / n)


#: A function of y_true, int64 (n,), and y_score, float64 (n, K).
Metric = Callable[[NDArray[np.int64], NDArray[np.float64]], float]

#: The metrics of every split, by their name after ``<split>/``.
SPLIT_METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_auroc": macro_auroc,
        "macro_f1": macro_f1,
        "log_loss": log_loss,
        "brier": brier,
        "ece": ece,
    }
)
#: The metrics of every class of the test split, named ``test/<name>/<slug>``.
CLASS_METRICS = MappingProxyType({"sensitivity": sensitivity, "specificity": specificity})


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
    """Compute the metrics of one split, with the names of ``compute_run_metrics``."""
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
    """Compute ``<slug>_{sensitivity,specificity,auroc}``; nothing without a positive class."""
    if positive_class is None:
        return {}
    k = split.slugs.index(positive_class)
    each = [metric(split.y_true, split.y_score)[k] for metric in (sensitivity, specificity, auroc)]
    return dict(zip(name_positive_class_metrics(positive_class), map(float, each), strict=True))


def compute_class_metrics(split: SplitPredictions) -> dict[str, float]:
    """Compute each of ``CLASS_METRICS`` for every class, named ``<name>/<slug>``."""
    return {
        f"{name}/{slug}": float(value)
        for name, metric in CLASS_METRICS.items()
        for slug, value in zip(split.slugs, metric(split.y_true, split.y_score), strict=True)
    }


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """Divide elementwise; return NaN, without a warning, if the denominator is zero."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient


def _mean_of_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN, without a warning, if all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
