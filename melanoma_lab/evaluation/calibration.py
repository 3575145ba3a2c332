"""Calibration of the predicted class's probability: reliability bins and their summary, the ECE.

The arrays are described in :mod:`melanoma_lab.evaluation.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.evaluation.metrics import check_arrays

N_BINS = 15
"""Bins of equal width over 0 to 1, as in Guo et al., ICML 2017."""


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
