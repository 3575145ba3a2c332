"""Metrics of a multi-class classifier: small pure functions, arrays in, floats out.

Throughout, ``y_true`` is int64 of shape (n,), class indices from 0 to K - 1, and ``y_score`` is
float64 of shape (n, K), probabilities that sum to one. The class decided for an image is the one
with the highest probability; where several are equal it is the first of them, in class order.

What is undefined is NaN, never 0 or 1: every metric of no images, the sensitivity of a class that
is absent from ``y_true``, an AUROC without both positives and negatives. A macro mean is taken over
the classes for which its term is defined; ``SplitPredictions.absent_classes`` are left out.

The selection follows the ISIC challenges (``isic-challenge-scoring``), which differ in three
ways: there an undefined sensitivity counts as 1, a tie is always wrong, and sensitivity and
specificity are decided per class at a probability above 0.5 rather than by the highest one.

Functions raise ValueError if the shapes or the labels break this contract.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

LOG_LOSS_EPSILON = 1e-7
"""Probabilities are raised to this before the logarithm is taken, as Keras does in its loss.

One confident mistake then costs at most 16.1 nats instead of making the mean infinite.
"""


def check_arrays(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> None:
    """Refuse arrays that would be broadcast or indexed into a wrong number silently.

    Raises:
        ValueError: If y_score is not of shape (n, K) for y_true of shape (n,), or a label is not
            in 0 to K - 1.
    """
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


def confusion_matrix(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count images by true class (row) and decided class (column); int64, shape (K, K)."""
    check_arrays(y_true, y_score)
    k = y_score.shape[1]
    cells = y_true * k + y_score.argmax(axis=1)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def accuracy(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Share of images whose class is decided correctly."""
    counts = confusion_matrix(y_true, y_score)
    return float(_ratio(np.trace(counts), counts.sum()))


def sensitivity(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each class's images that are decided to be of it; shape (K,).

    Also called recall or true positive rate. NaN where the class is absent from y_true.
    """
    counts = confusion_matrix(y_true, y_score)
    return _ratio(np.diag(counts), counts.sum(axis=1))


def specificity(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the other classes' images that are decided not to be of each class; shape (K,).

    Also called true negative rate. NaN where every image is of the class.
    """
    counts = confusion_matrix(y_true, y_score)
    negatives = counts.sum() - counts.sum(axis=1)
    false_positives = counts.sum(axis=0) - np.diag(counts)
    return _ratio(negatives - false_positives, negatives)


def balanced_accuracy(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Mean sensitivity over the classes present in y_true; 1 / classes present is chance.

    The goal metric of the ISIC 2018 and 2019 classification challenges.
    """
    return _mean_of_defined(sensitivity(y_true, y_score))


def macro_f1(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Mean over the classes present in y_true of F1 = 2 TP / (2 TP + FP + FN)."""
    counts = confusion_matrix(y_true, y_score)
    present = counts.sum(axis=1) > 0
    f1 = _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))
    return _mean_of_defined(f1[present])


def auroc(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under each class's one-vs-rest ROC curve; shape (K,).

    The probability that an image of the class has a higher score for it than an image of another
    class, ties counting one half: the Mann-Whitney U statistic over its maximum (Hanley and
    McNeil, Radiology 143, 1982), from mid-ranks. It equals the area under the trapezoidal curve,
    and takes all classes at once. NaN where a class has no positives or no negatives.
    """
    check_arrays(y_true, y_score)
    positive = y_true[:, None] == np.arange(y_score.shape[1])
    n_positive = positive.sum(axis=0)
    rank_sums = np.where(positive, rankdata(y_score, axis=0), 0.0).sum(axis=0)
    wins = rank_sums - n_positive * (n_positive + 1) / 2
    return _ratio(wins, n_positive * (len(y_true) - n_positive))


def macro_auroc(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Mean one-vs-rest AUROC over the classes that have positives and negatives."""
    return _mean_of_defined(auroc(y_true, y_score))


def log_loss(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Mean negative natural logarithm of the true class's probability, in nats.

    Probabilities below ``LOG_LOSS_EPSILON`` count as that.
    """
    return _mean_of_defined(image_log_loss(y_true, y_score))


def image_log_loss(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The terms of ``log_loss``: one per image, in nats, shape (n,)."""
    check_arrays(y_true, y_score)
    p_true = y_score[np.arange(len(y_true)), y_true]
    # The upper limit keeps a float32 probability that rounded to above one from a negative loss.
    losses: NDArray[np.float64] = -np.log(np.clip(p_true, LOG_LOSS_EPSILON, 1.0))
    return losses


def brier(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> float:
    """Brier score: squared error summed over classes, mean over images; 0 (best) to 2.

    Brier's own definition (Monthly Weather Review 78, 1950): for two classes it is twice what
    is common for a single probability.
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


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """Elementwise numerator / denominator, NaN without a warning where the latter is zero."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient


def _mean_of_defined(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN, without a warning, where there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
