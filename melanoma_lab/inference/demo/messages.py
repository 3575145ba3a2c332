"""Sentences about an image and a model for the demo page; pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from melanoma_lab.core import formatting
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.prediction_messages import list_source_notes, name_source
from melanoma_lab.tracking.logged_model import ModelInfo

#: The space between a number and its unit.
SPACE = "\N{NO-BREAK SPACE}"
#: Split -> its name before the word "images".
SPLIT_NAMES = {TRAIN: "training", VAL: "validation", TEST: "test"}
#: The part of an image that is shown if the network crops it.
PART = "its middle part; the network does not see the rest"


def format_percent(share: float) -> str:
    """Format a share as ``62.3 %`` on one line; only exactly 0 and 1 become 0 and 100 %."""
    return formatting.format_percent(share, strict=True).replace(" ", SPACE)


def describe_decision(probability: float, reached: bool, name: str, advice: DecisionRule) -> str:
    """Describe the decision for an image at the operating point of the class of this name.

    ``probability`` is the class's calibrated probability; ``reached`` says whether it reaches the
    threshold.
    """
    counts, compared = ("counts", "reaches") if reached else ("does not count", "is below")
    return (
        f"At the operating point it {counts} as {name}: {format_percent(probability)} {compared} "
        f"the threshold of {format_percent(advice.threshold)}."
    )


def describe_operating_point(name: str, advice: DecisionRule) -> str:
    """Describe how the threshold of a class was chosen and, if measured, its two rates."""
    chosen = (
        f"The threshold was chosen so that {_format_whole_percent(advice.target)} of the "
        f"validation images of {name} reach it."
    )
    if not advice.measured_on or math.isnan(advice.sensitivity.value + advice.specificity.value):
        return chosen
    optimistic = " The threshold was chosen on these images, so expect lower values on others."
    flattered = optimistic if advice.measured_on == VAL else ""
    return (
        f"{chosen} Of the {SPLIT_NAMES.get(advice.measured_on, advice.measured_on)} images of "
        f"{name}, {_format_rate(advice.sensitivity)} reach it (sensitivity); of all others, "
        f"{_format_rate(advice.specificity)} do not (specificity).{flattered}"
    )


def describe_unlike_image(unlike: float) -> str:
    """Warn about the answer to a picture that is unlike the training images.

    ``unlike`` is its distance from ``OutOfDistributionDetector.relative_distance``, above 1.
    """
    return (
        f"This image looks unlike the training images ({unlike:.1f} times as far from them as "
        f"99{SPACE}% of the validation images are). If it is not a photograph of the same kind, "
        "the prediction is meaningless."
    )


def describe_known_file(split: str, label: str) -> str:
    """Describe the role of a file in the model's own dataset, and what its answer then proves."""
    role = f"This file is one of the model's {SPLIT_NAMES[split]} images, labelled {label}."
    if split == TRAIN:
        return f"{role} The network was trained on it, so its prediction proves nothing."
    if split == VAL:
        return f"{role} The network was selected on such images, so its prediction proves little."
    return role


def count_labels(labels: Iterable[str]) -> str:
    """Count labels, the most frequent first: ``3 nevus, 2 melanoma``."""
    return ", ".join(f"{n}{SPACE}{label}" for label, n in Counter(labels).most_common())


def explain_uncalibrated(advice: DecisionRule | None) -> str:
    """Return why the probabilities are not calibrated; empty if they are."""
    if advice is None:
        return "are not calibrated: no temperature was saved with the model"
    if advice.temperature.why_not:
        return f"are not calibrated: {advice.temperature.why_not}"
    return ""


def describe_model(source: ModelSource, card: ModelInfo, size: int) -> str:
    """Describe the model in one line."""
    trained = f", trained on {card.dataset}" if card.dataset else ""
    return f"{name_source(source)}{trained}: {len(card.slugs)} classes, {size} x {size} pixels"


def list_model_limits(source: ModelSource, card: ModelInfo) -> list[str]:
    """List the limits of a model, in one or two sentences each."""
    learned = f"It was trained on images of {card.dataset}. " if card.dataset else ""
    classes = ", ".join(card.names)
    answers = "Whatever the image shows, even healthy skin or no skin, it predicts one of these"
    return [
        f"{answers}: {classes}.",
        learned + "Its performance with other cameras, skin colours, ages or clinics is not known.",
        "It uses one image only: no history, no other lesions and no physical examination.",
        "Coloured areas and similar images show what influenced the network, not that it is right.",
        *list_source_notes(source, card),
    ]


def _format_rate(rate: IntervalEstimate) -> str:
    value, high = _format_whole_percent(rate.value), _format_whole_percent(rate.high)
    return f"{value} (95{SPACE}% interval {100 * rate.low:.0f} to {high})"


def _format_whole_percent(share: float) -> str:
    return formatting.format_percent(share, 0).replace(" ", SPACE)
