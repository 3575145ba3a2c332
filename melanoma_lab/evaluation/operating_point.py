"""From which probability of melanoma on to say so: chosen on val, measured on test.

The highest probability decides nothing about a rare class whose mistakes cost more: where the
network is to find at least so many of the melanomas, its threshold is what has to be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate, estimate_proportion

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class ThresholdRates:
    """What a threshold comes to in a split.

    Attributes:
        n_images: of the split.
        n_lesions: groups that they are of.
        positive_images: those that are truly of the class.
        positive_lesions: groups that have one.
        sensitivity: share of the positive images that reach the threshold.
        specificity: share of the others that do not.
        ppv: share of the images that reach it which are positive: positive predictive value. It
            and ``npv`` are of this dataset's share of the class, which is no clinic's.
        npv: share of the images that do not reach it which are not.
    """

    n_images: int
    n_lesions: int
    positive_images: int
    positive_lesions: int
    sensitivity: IntervalEstimate
    specificity: IntervalEstimate
    ppv: IntervalEstimate
    npv: IntervalEstimate


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for one class, and what it comes to.

    Attributes:
        slug: of the class.
        target: the sensitivity that was asked for on val.
        threshold: on the class's calibrated probability; an image that reaches it is called
            positive. NaN where val has no image of the class.
        rates: by split. Val's are those that the threshold was chosen by, and so look better than
            they are; test's intervals are of this threshold, however well it was chosen.
    """

    slug: str
    target: float
    threshold: float
    rates: Mapping[str, ThresholdRates]


def choose_threshold(positive: Bools, score: Floats, target: float) -> float:
    """The largest threshold that at least a share ``target`` of the positive images reaches.

    Args:
        positive: bool, shape (n,); whether an image is of the class.
        score: float64, shape (n,); the higher, the likelier it is.
        target: above 0, at most 1.

    Returns:
        A score of a positive image; NaN where there is none.
    """
    scores = np.sort(score[positive])[::-1]
    if not len(scores):
        return float("nan")
    # 0.28 of 25 are seven, though 0.28 * 25 is a hair more.
    needed = int(np.ceil(target * len(scores) - 1e-9))
    return float(scores[needed - 1])


def measure_rates(
    positive: Bools, score: Floats, groups: Codes, threshold: float
) -> ThresholdRates:
    """Measure a threshold, with intervals whose unit is the group.

    Args:
        positive: bool, shape (n,).
        score: float64, shape (n,).
        groups: int64, shape (n,), not negative.
        threshold: an image with at least this score is called positive; with NaN no rate is
            defined.
    """
    called = score >= threshold

    def share(hit: Bools, among: Bools) -> IntervalEstimate:
        chosen = among & ~np.isnan(threshold)
        return estimate_proportion(hit[chosen], groups[chosen])

    return ThresholdRates(
        n_images=len(positive),
        n_lesions=len(np.unique(groups)),
        positive_images=int(positive.sum()),
        positive_lesions=len(np.unique(groups[positive])),
        sensitivity=share(called, positive),
        specificity=share(~called, ~positive),
        ppv=share(positive, called),
        npv=share(~positive, ~called),
    )
