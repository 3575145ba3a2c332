"""Decision curves: is treating by a network's probability better than treating all, or nobody?

Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006). Treating every image
with a probability of at least p means that one missed positive is as bad as (1 - p) / p treated
negatives. The net benefit expresses both in the same unit, positives found per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.evaluation.confidence_intervals import compute_mean_interval

Floats = NDArray[np.float64]

THRESHOLDS: Floats = np.arange(1, 61) / 100
"""Sensible thresholds p: from 99 needless biopsies for one melanoma to 0.67.

With a higher threshold, missing a melanoma would be better than removing a harmless lesion.
"""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of treating by a score at each threshold; that of treating nobody is 0.

    Attributes:
        thresholds: float64, shape (m,), each above 0 and below 1.
        network: float64, shape (m,); net benefit of treating images that reach the threshold.
        low: float64, shape (m,); lower bounds of its pointwise 95 % interval, clustered by group.
        high: float64, shape (m,); upper bounds.
        everybody: float64, shape (m,); net benefit of treating all.
    """

    thresholds: Floats
    network: Floats
    low: Floats
    high: Floats
    everybody: Floats


def decision_curve(
    positive: NDArray[np.bool_],
    score: Floats,
    groups: NDArray[np.int64],
    thresholds: Floats = THRESHOLDS,
) -> DecisionCurve:
    """Compute the net benefit TP / n - FP / n * p / (1 - p) at each threshold p.

    Args:
        positive: bool, shape (n,), n at least 1; whether each image is of the class.
        score: float64, shape (n,); probabilities of the class.
        groups: int64, shape (n,), not negative; the group of each image.
        thresholds: float64, shape (m,).
    """
    gain = np.where(positive[:, None], 1.0, -thresholds / (1 - thresholds))
    treated = np.where(score[:, None] >= thresholds, gain, 0.0)
    low, high = compute_mean_interval(treated, groups)
    return DecisionCurve(thresholds, treated.mean(axis=0), low, high, gain.mean(axis=0))
