"""Decision curves: is acting on a network's probability better than treating all, or nobody?

Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006). Whoever treats from a
probability p on takes one positive that is missed for as bad as (1 - p) / p negatives that are
treated; the net benefit counts both in the same coin, positives found per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.evaluation.confidence_intervals import compute_mean_interval

Floats = NDArray[np.float64]

THRESHOLDS: Floats = np.arange(1, 61) / 100
"""From which probabilities on one may sensibly treat: 99 biopsies for a melanoma, to one for 1.5.

Beyond, one would rather miss a melanoma than take a harmless lesion out.
"""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of treating by a score, from each threshold on; that of treating nobody is 0.

    Attributes:
        thresholds: float64, shape (m,), each above 0 and below 1.
        network: float64, shape (m,); of treating what reaches the threshold.
        low: lower bounds of its pointwise 95 % interval over draws of groups.
        high: upper bounds.
        everybody: float64, shape (m,); of treating all.
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
    """Net benefit: TP / n - FP / n * p / (1 - p), over thresholds p.

    Args:
        positive: bool, shape (n,), n at least 1.
        score: float64, shape (n,); probabilities.
        groups: int64, shape (n,), not negative.
        thresholds: float64, shape (m,).
    """
    gain = np.where(positive[:, None], 1.0, -thresholds / (1 - thresholds))
    treated = np.where(score[:, None] >= thresholds, gain, 0.0)
    low, high = compute_mean_interval(treated, groups)
    return DecisionCurve(thresholds, treated.mean(axis=0), low, high, gain.mean(axis=0))
