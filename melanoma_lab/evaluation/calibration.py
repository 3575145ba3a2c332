"""Calibration of the predicted class's probability: how to measure it, and how to improve it.

Reliability bins and their summary, the ECE, measure it. Temperature scaling, one number fitted on
val, corrects a network's confidence. It changes neither the predicted classes nor the network: the
tracked model, and every metric without ``calibrated`` in its name, use the probabilities that the
network returns.

The arrays are described in :mod:`melanoma_lab.evaluation.metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from melanoma_lab.evaluation.metrics import check_arrays

N_BINS = 15
"""Bins of equal width over 0 to 1, as in Guo et al., ICML 2017."""

COLDEST, HOTTEST = 0.01, 100.0
"""The lowest and the highest temperature that is searched."""

FEWEST = 30
"""The fewest images to fit to: with fewer, one more mistake changes the temperature much."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""Replaces smaller probabilities: float32's smallest normal number, whose logarithm is -87."""


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
    """Bin images by the probability of their predicted class.

    Args:
        y_true: int64, shape (n,); index of the true class.
        y_score: float64, shape (n, K); probabilities.
        n_bins: number of bins of equal width.

    Raises:
        ValueError: the shapes do not match, or a label is out of range.
    """
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


@dataclass(frozen=True)
class Temperature:
    """A temperature, and the number of images that it was fitted to.

    Attributes:
        value: above 1 if the network is overconfident, below 1 if it is underconfident; 1, which
            changes nothing, if no temperature could be fitted.
        n: number of images that it was fitted to.
        why_not: why no temperature could be fitted; empty if one was.
    """

    value: float
    n: int
    why_not: str = ""

    def apply(self, y_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, softmax(log p / T); float64, shape (n, K).

        The order of an image's classes does not change. If no temperature could be fitted,
        ``y_score`` itself is returned.

        Args:
            y_score: float64, shape (n, K); probabilities p that the network returned.
        """
        if self.why_not:
            return y_score
        calibrated: NDArray[np.float64] = softmax(_logits(y_score) / self.value, axis=1)
        return calibrated


def fit_temperature(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> Temperature:
    """Find the temperature with the lowest log loss (Guo et al., ICML 2017).

    Logarithms of probabilities can stand for logits: they differ by a constant for each image,
    which does not change a softmax. The log loss is convex in 1 / T, so the root of its slope is
    its minimum. There is none if every image is classified correctly (the loss falls for ever lower
    T) or if the scores are worse than equal probabilities (it falls for ever higher T). With fewer
    than ``FEWEST`` images none is fitted.

    One temperature for all classes corrects the network's confidence, not the frequency that it
    assumes for a class. A network trained for balanced classes (``loss=logit_adjusted``, class
    weights, balanced images) assumes that rare classes are more frequent than they are, and still
    does after the best temperature: compare ``calibrated_log_loss`` and the reliability diagram
    before reading its calibrated probabilities as frequencies. Thresholds are not affected: they
    are chosen by the sensitivity that they reach.

    Args:
        y_true: int64, shape (n,); index of the true class.
        y_score: float64, shape (n, K); probabilities that the network returned.

    Raises:
        ValueError: the shapes do not match, or a label is out of range.
    """
    check_arrays(y_true, y_score)
    n = len(y_true)
    if n < FEWEST:
        return Temperature(1.0, n, f"there are {n} validation images; {FEWEST} are needed")
    logits = _logits(y_score)
    true = logits[np.arange(n), y_true]

    def slope(log_sharpness: float) -> float:
        """Return the slope of the log loss with respect to 1 / T."""
        shares = np.exp(log_softmax(math.exp(log_sharpness) * logits, axis=1))
        return float(np.mean((shares * logits).sum(axis=1) - true))

    coldest, hottest = -math.log(COLDEST), -math.log(HOTTEST)
    if slope(hottest) >= 0:
        return Temperature(
            1.0, n, "equal probabilities for all classes are no worse on the validation images"
        )
    if slope(coldest) <= 0:
        return Temperature(
            1.0, n, "there is no wrong decision on the validation images that limits the confidence"
        )
    return Temperature(math.exp(-brentq(slope, hottest, coldest, xtol=1e-10)), n)


def _logits(y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return natural logarithms of probabilities; that of zero is finite."""
    logits: NDArray[np.float64] = np.log(np.maximum(y_score, SMALLEST))
    return logits
