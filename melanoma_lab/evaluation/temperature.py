"""Temperature scaling: one number, fitted on val, that makes a network as sure as it is right.

It changes no decision, and no network: the model that is tracked, and every metric without
``calibrated`` in its name, are of the probabilities as the network gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from melanoma_lab.evaluation.metrics import check_arrays

COLDEST, HOTTEST = 0.01, 100.0
"""Between which a temperature is looked for."""

FEWEST = 30
"""Images that it takes: of a handful, one mistake more is another temperature altogether."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""What a probability of zero counts as: float32's smallest normal number, a logarithm of -87."""


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it was fitted to.

    Attributes:
        value: above 1 where the network is too sure of itself, below where it is not sure enough;
            1, which changes nothing, where none could be fitted.
        n: images that it was fitted to.
        why_not: why none could be fitted; empty where one was.
    """

    value: float
    n: int
    why_not: str = ""

    def apply(self, y_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, softmax(log p / T); float64, shape (n, K), as ``y_score``.

        Which class is highest stays as it is. Where none could be fitted all of it does.
        """
        if self.why_not:
            return y_score
        calibrated: NDArray[np.float64] = softmax(_logits(y_score) / self.value, axis=1)
        return calibrated


def fit_temperature(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> Temperature:
    """The temperature of the least log loss (Guo et al., ICML 2017).

    Probabilities are logits enough: log p is a logit but for a constant of the image, which
    softmax does not see. In 1 / T the log loss is convex, so the root of its slope is its minimum,
    and there is one unless every image is decided rightly (ever surer is ever better) or the
    network knows less than nothing (none is better). Fewer than ``FEWEST`` images fit none.

    One temperature for all classes corrects how sure a network is, not how frequent it takes a
    class for. What was trained for balanced classes (``loss=logit_adjusted``, class weights,
    balanced images) takes rare ones for more frequent than they are, and after the best
    temperature still does: compare ``calibrated_log_loss`` and the reliability diagram before
    reading its calibrated probabilities as frequencies. Thresholds are not touched by that: they
    are chosen by what they find.

    Args:
        y_true: int64, shape (n,).
        y_score: float64, shape (n, K), as the network gives them.

    Raises:
        ValueError: The arrays do not fit each other.
    """
    check_arrays(y_true, y_score)
    n = len(y_true)
    if n < FEWEST:
        return Temperature(1.0, n, f"there are {n} images to fit it to; {FEWEST} are needed")
    logits = _logits(y_score)
    true = logits[np.arange(n), y_true]

    def slope(log_sharpness: float) -> float:
        """Of the log loss, in 1 / T."""
        shares = np.exp(log_softmax(math.exp(log_sharpness) * logits, axis=1))
        return float(np.mean((shares * logits).sum(axis=1) - true))

    coldest, hottest = -math.log(COLDEST), -math.log(HOTTEST)
    if slope(hottest) >= 0:
        return Temperature(1.0, n, "taking every class for equally likely is no worse")
    if slope(coldest) <= 0:
        return Temperature(1.0, n, "there is no wrong decision that could cost certainty")
    return Temperature(math.exp(-brentq(slope, hottest, coldest, xtol=1e-10)), n)


def _logits(y_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms of probabilities, those of zero being finite."""
    logits: NDArray[np.float64] = np.log(np.maximum(y_score, SMALLEST))
    return logits
