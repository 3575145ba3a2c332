"""Did a run learn anything, or did it end where it could have started?

Judged on the training images in inference mode, which every network that learns at all does
better on than chance, so that a collapsed run is told from one that merely fails to generalise.
(A run whose loss stops being finite has diverged; the training loop says so.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.predictions import Predictions

ONE_ANSWER_SHARE = 0.99
"""From this share of images on, deciding for one class counts as deciding for it always."""

MIN_EXPLAINED = 0.01
"""Least share of the labels' uncertainty (McFadden's pseudo R squared) that shows learning."""

MIN_SKILL = 0.05
"""Least chance-adjusted balanced accuracy that shows learning: 0 is chance, 1 is perfect."""


@dataclass(frozen=True)
class ChanceCheck:
    """What became of a run.

    Attributes:
        verdict: ``learned``, or ``at_chance`` where the run collapsed.
        reason: one sentence for the user.
    """

    verdict: Literal["learned", "at_chance"]
    reason: str


def compare_with_chance(predictions: Predictions) -> ChanceCheck:
    """Decide from a run's predictions whether it learned or stayed at chance.

    It stayed at chance if there is one class only; if at least ``ONE_ANSWER_SHARE`` of the
    training images are decided to be of one class, unless that many truly are; or if neither its
    probabilities nor its decisions say anything of the images:

    * probabilities: the log loss is less than ``MIN_EXPLAINED`` below the entropy of the
      classes, which is what the best constant answer scores. It is taken with images weighted
      equally and with classes weighted equally (entropy: log of their number), and has to fail in
      both, because a network trained on balanced classes knows another prior than the images
      have and may lose to the images' own without being any the worse at telling them apart;
    * decisions: balanced accuracy B over K present classes gives (B - 1/K) / (1 - 1/K) below
      ``MIN_SKILL``. A network that is right but far too sure of itself fails the first and
      passes the second.

    Args:
        predictions: Of training images, and of others that are not looked at.

    Raises:
        ValueError: If there are no training images.
    """
    training = predictions.split("train")
    y_true, y_score, slugs = training.y_true, training.y_score, training.slugs
    if not y_true.size:
        raise ValueError("Expected a predictions table with training rows. Received none.")
    class_counts = np.bincount(y_true, minlength=len(slugs))
    class_shares = class_counts / len(y_true)
    n_present = np.count_nonzero(class_counts)
    if n_present == 1:
        only = slugs[int(class_counts.argmax())]
        return ChanceCheck("at_chance", f"every training image is {only}: nothing to tell apart.")

    answer_shares = np.bincount(training.predicted, minlength=len(slugs)) / len(y_true)
    answer = int(answer_shares.argmax())
    if answer_shares[answer] >= ONE_ANSWER_SHARE > class_shares[answer]:
        return ChanceCheck(
            "at_chance",
            f"{format_percent(answer_shares[answer])} of the training images are taken for "
            f"{slugs[answer]}; {format_percent(class_shares[answer])} truly are.",
        )

    losses = metrics.image_log_loss(y_true, y_score)
    entropy = _entropy(class_shares)
    class_losses = [losses[y_true == k].mean() for k in np.flatnonzero(class_counts)]
    explained = max(
        1 - losses.mean() / entropy,  # images weighted equally
        1 - np.mean(class_losses) / np.log(n_present),  # classes weighted equally
    )
    balanced_accuracy = metrics.balanced_accuracy(y_true, y_score)
    chance = 1 / n_present
    skill = (balanced_accuracy - chance) / (1 - chance)
    decisions = (
        f"balanced accuracy on the training images is {format_percent(balanced_accuracy)} "
        f"({format_percent(chance)} is chance)"
    )
    if explained < MIN_EXPLAINED and skill < MIN_SKILL:
        return ChanceCheck(
            "at_chance",
            f"{decisions} and log loss {losses.mean():.3f}, where answering with the class "
            f"shares whatever the image scores {entropy:.3f}.",
        )
    return ChanceCheck("learned", f"{decisions}.")


def _entropy(shares: NDArray[np.float64]) -> float:
    """Shannon entropy of class shares that sum to one, in nats."""
    present = shares[shares > 0]
    return float(-np.sum(present * np.log(present)))
