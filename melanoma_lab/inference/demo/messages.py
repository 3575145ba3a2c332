"""What the page says of an image and of a model, in sentences; pure functions."""

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
from melanoma_lab.tracking.model_info import ModelInfo

#: One at which no line is broken.
SPACE = "\N{NO-BREAK SPACE}"
#: What the splits are called before "images".
SPLIT_NAMES = {TRAIN: "training", VAL: "validation", TEST: "test"}
#: Of an image whose ends are cut off.
PART = "its middle; the network sees no more of it"


def format_percent(share: float) -> str:
    """A share as a reader takes it: ``62.3 %``, kept together; never a 0 or 100 that is none."""
    return formatting.format_percent(share, strict=True).replace(" ", SPACE)


def describe_decision(probability: float, reached: bool, name: str, advice: DecisionRule) -> str:
    """What the operating point makes of an image.

    Args:
        probability: calibrated, of the operating point's class.
        reached: whether it reaches the threshold.
        name: of the class.
        advice: with a threshold.
    """
    counts, compared = ("counts", "reaches") if reached else ("does not count", "is below")
    return (
        f"At the operating point it {counts} as {name}: {format_percent(probability)} {compared} "
        f"the threshold of {format_percent(advice.threshold)}."
    )


def describe_operating_point(name: str, advice: DecisionRule) -> str:
    """What the threshold was chosen for, and how often it was right, where that is known.

    Args:
        name: of its class.
        advice: how the model's answers are to be read.
    """
    chosen = (
        f"The threshold was chosen so that {_whole(advice.target)} of the validation images of "
        f"{name} reach it."
    )
    if not advice.measured_on or math.isnan(advice.sensitivity.value + advice.specificity.value):
        return chosen
    flattered = " It was chosen by these images, so expect less." * (advice.measured_on == VAL)
    return (
        f"{chosen} Of the {SPLIT_NAMES.get(advice.measured_on, advice.measured_on)} images of "
        f"{name}, {_rate(advice.sensitivity)} reach it (sensitivity); of all others, "
        f"{_rate(advice.specificity)} do not (specificity).{flattered}"
    )


def describe_unlike_image(unlike: float) -> str:
    """What to think of an answer to a picture that is unlike the training images.

    Args:
        unlike: as ``OutOfDistributionDetector.relative_distance`` gives it, above 1.
    """
    return (
        f"This picture looks unlike the training images ({unlike:.1f} times as far from them as "
        f"99{SPACE}% of the validation images are). If it is no photograph of the same kind, the "
        "answer means nothing."
    )


def describe_known_file(split: str, label: str) -> str:
    """What to think of an answer to an image of the model's own dataset.

    Args:
        split: that the image is in.
        label: its class name.
    """
    told = f"This very file is one of the model's {SPLIT_NAMES[split]} images, labelled {label}."
    if split == TRAIN:
        return f"{told} The network has learned from it, so its answer proves nothing."
    if split == VAL:
        return f"{told} The network was chosen by such images, so its answer proves little."
    return told


def count_labels(labels: Iterable[str]) -> str:
    """How often labels occur, the most frequent first: ``3 nevus, 2 melanoma``."""
    return ", ".join(f"{n}{SPACE}{label}" for label, n in Counter(labels).most_common())


def explain_uncalibrated(advice: DecisionRule | None) -> str:
    """Why probabilities are shown as the network gives them; empty where they are calibrated."""
    if advice is None:
        return "as the network gives them: nothing says how to calibrate them"
    if advice.temperature.why_not:
        return f"as the network gives them, not calibrated: {advice.temperature.why_not}"
    return ""


def describe_model(source: ModelSource, card: ModelInfo, size: int) -> str:
    """Which model this is, in a line."""
    trained = f", trained on {card.dataset}" if card.dataset else ""
    return f"{name_source(source)}{trained}: {len(card.slugs)} classes, {size} x {size} pixels"


def list_model_limits(source: ModelSource, card: ModelInfo) -> list[str]:
    """What a model must not be taken for, a sentence or two each.

    Args:
        source: where it comes from.
        card: what its outputs mean.
    """
    learned = f"It was trained on images of {card.dataset}. " if card.dataset else ""
    classes = ", ".join(card.names)
    answers = "Whatever the picture shows, healthy skin or no skin at all, it names one of these"
    return [
        f"{answers}: {classes}.",
        learned + "How it does with other cameras, skin colours, ages or clinics is not known.",
        "It looks at one picture. It knows no history, no other lesions, nothing that can be felt.",
        "Coloured areas and similar images show what moved the network, not that it is right.",
        *list_source_notes(source, card),
    ]


def _rate(rate: IntervalEstimate) -> str:
    return f"{_whole(rate.value)} (95{SPACE}% interval {100 * rate.low:.0f} to {_whole(rate.high)})"


def _whole(share: float) -> str:
    return formatting.format_percent(share, 0).replace(" ", SPACE)
