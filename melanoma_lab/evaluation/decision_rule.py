"""The rule, chosen on val, by which a network's probabilities become decisions on new images.

Predicting the class with the highest probability does not suit a rare class whose mistakes cost
more. If the network must find a given share of the melanomas, a threshold must be chosen: the
operating point. Decision curves show for every threshold whether treating by the network's
probability is better than treating all, or nobody.

Temperature scaling, one number fitted on val, corrects a network's confidence. It changes neither
the predicted classes nor the network: the tracked model, and every metric without ``calibrated`` in
its name, use the probabilities that the network returns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from melanoma_lab.core.untrusted_files import parse_json
from melanoma_lab.evaluation.confidence_intervals import (
    UNDEFINED,
    IntervalEstimate,
    compute_mean_interval,
    estimate_proportion,
)
from melanoma_lab.evaluation.metrics import check_arrays

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

#: File name of the rule in the folder of a model.
FILE: Final = "advice.json"
#: Sensible thresholds p: from 99 needless biopsies for one melanoma to 0.67.
#:
#: With a higher threshold, missing a melanoma would be better than removing a harmless lesion.
THRESHOLDS: Floats = np.arange(1, 61) / 100
#: The lowest and the highest temperature that is searched.
COLDEST, HOTTEST = 0.01, 100.0
#: The fewest images to fit to: with fewer, one more mistake changes the temperature much.
FEWEST = 30
#: Replaces smaller probabilities: float32's smallest normal number, whose logarithm is -87.
SMALLEST = float(np.finfo(np.float32).tiny)


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
    return np.log(np.maximum(y_score, SMALLEST))


@dataclass(frozen=True)
class ThresholdRates:
    """Rates of a threshold on one split, with intervals clustered by group.

    Attributes:
        n_lesions: number of groups.
        positive_images: number of images that are of the class.
        positive_lesions: number of groups with such an image.
        sensitivity: share of the positive images that reach the threshold.
        specificity: share of the other images that do not reach it.
        ppv: positive predictive value, the share of positive images among those that reach the
            threshold. It and ``npv`` depend on the class's share in this dataset, which differs
            from that in a clinic.
        npv: negative predictive value, the share of other images among those that do not reach it.
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
    """A threshold for one class, and its rates.

    Attributes:
        target: the required sensitivity on val.
        threshold: threshold of the class's calibrated probability; an image that reaches it is
            predicted positive. NaN if val has no image of the class.
        rates: rates by split. Those of val are optimistic, because the threshold was chosen on val.
            The intervals of test are those of this threshold; they do not include the uncertainty
            of choosing it.
    """

    slug: str
    target: float
    threshold: float
    rates: Mapping[str, ThresholdRates]


def choose_threshold(positive: Bools, score: Floats, target: float) -> float:
    """Choose the largest threshold that at least a share ``target`` of positive images reaches.

    Args:
        positive: bool, shape (n,); whether each image is of the class.
        score: float64, shape (n,); score of each image, higher if the class is more likely.
        target: the required sensitivity, above 0 and at most 1.

    Returns:
        A score of a positive image; NaN if there is none.
    """
    scores = np.sort(score[positive])[::-1]
    if not len(scores):
        return float("nan")
    # 0.28 of 25 images are 7, but 0.28 * 25 is slightly above 7 in floating point.
    needed = int(np.ceil(target * len(scores) - 1e-9))
    return float(scores[needed - 1])


def measure_rates(
    positive: Bools, score: Floats, groups: Codes, threshold: float
) -> ThresholdRates:
    """Measure the rates of a threshold, with intervals clustered by group.

    Args:
        positive: bool, shape (n,); whether each image is of the class.
        score: float64, shape (n,); score of each image.
        groups: int64, shape (n,), not negative; the group of each image.
        threshold: an image with at least this score is predicted positive; if NaN, the rates are
            undefined.
    """
    predicted = score >= threshold

    def share(hit: Bools, among: Bools) -> IntervalEstimate:
        chosen = among & ~np.isnan(threshold)
        return estimate_proportion(hit[chosen], groups[chosen])

    return ThresholdRates(
        n_images=len(positive),
        n_lesions=len(np.unique(groups)),
        positive_images=int(positive.sum()),
        positive_lesions=len(np.unique(groups[positive])),
        sensitivity=share(predicted, positive),
        specificity=share(~predicted, ~positive),
        ppv=share(positive, predicted),
        npv=share(~positive, ~predicted),
    )


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

    Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006). Treating every
    image with a probability of at least p means that one missed positive is as bad as (1 - p) / p
    treated negatives. The net benefit expresses both in the same unit, positives found per image.

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


@dataclass(frozen=True)
class DecisionRule:
    """Temperature and threshold, chosen on val, that are applied to predictions of new images.

    Attributes:
        slug: slug of the class that has a threshold; empty without a threshold.
        threshold: threshold of the class's calibrated probability; NaN if there is none.
        target: the sensitivity for which the threshold was chosen; NaN if there is none.
        measured_on: the split on which the rates below were measured: test, or val, on which the
            threshold was chosen, if test was not predicted; empty if unknown.
        sensitivity: sensitivity on that split, with its interval clustered by lesion.
        specificity: specificity on that split, likewise.
    """

    temperature: Temperature
    slug: str = ""
    threshold: float = math.nan
    target: float = math.nan
    measured_on: str = ""
    sensitivity: IntervalEstimate = UNDEFINED
    specificity: IntervalEstimate = UNDEFINED

    def plain(self) -> Any:
        """Return the rule as plain containers; undefined values are None."""
        return _replace_nan(asdict(self))

    def text(self) -> str:
        """Return the rule as JSON, the content of ``FILE``."""
        return dump_strict_json(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a rule from JSON that ``DecisionRule.text`` wrote.

        Raises:
            ValueError: the text is not a rule.
        """
        try:
            content = parse_json(text)
            numbers = {
                name: math.nan if content[name] is None else float(content[name])
                for name in ("threshold", "target")
            }
            values = content["temperature"]
            temperature = Temperature(
                float(values["value"]), int(values["n"]), str(values["why_not"])
            )
            rule = cls(
                temperature,
                str(content["slug"]),
                **numbers,
                measured_on=str(content["measured_on"]),
                sensitivity=_read_estimate(content["sensitivity"]),
                specificity=_read_estimate(content["specificity"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected the keys that a run writes. Received {error!r}.") from error
        if not 0 < temperature.value < math.inf:
            raise ValueError(f"Expected a temperature above 0. Received {temperature.value}.")
        return rule


def _read_estimate(content: Any) -> IntervalEstimate:
    """Read an estimate; undefined if a value is null."""
    numbers = {k: content[k] for k in asdict(UNDEFINED)}
    if None in numbers.values():
        return UNDEFINED
    return IntervalEstimate(**{k: float(v) for k, v in numbers.items()})


def dump_strict_json(content: Any) -> str:
    """Return plain containers as JSON, with null for NaN."""
    return json.dumps(_replace_nan(content), indent=2, allow_nan=False) + "\n"


def _replace_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _replace_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace_nan(value) for value in node]
    return None if isinstance(node, float) and math.isnan(node) else node
