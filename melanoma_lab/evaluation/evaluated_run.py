"""A run with all data for its pages, figures and tables, and whether it learned anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.data.split import SPLITS, TEST
from melanoma_lab.evaluation.clinical_evaluation import (
    ClinicalEvaluation,
    apply_decision_rule,
    evaluate_clinically,
)
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.metrics import (
    balanced_accuracy,
    compute_run_metrics,
    compute_split_metrics,
    image_log_loss,
)
from melanoma_lab.evaluation.predictions import Predictions

#: Share of images predicted as one class from which on the network always predicts that class.
ONE_ANSWER_SHARE = 0.99
#: The least explained share of the labels' entropy (McFadden's pseudo R squared) that shows
#: learning.
MIN_EXPLAINED = 0.01
#: The least chance-adjusted balanced accuracy that shows learning: 0 is chance, 1 is perfect.
MIN_SKILL = 0.05


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run's predictions, their evaluation, and the description of its images.

    Attributes:
        config: the resolved configuration as plain containers, as in ``config.yaml``.
        manifest: the table of images, with image_id, group and split.
        audit: the result of the audit, as in ``audit.json``; None if it was not saved.
        positive_class: slug of the class that is reported separately; None if there is none. In an
            external evaluation it is the model's positive class.
        metrics: values by name; of a run that was tracked before, the tracked values.
        splits: the splits whose metrics were computed.
    """

    config: Mapping[str, Any]
    predictions: Predictions
    manifest: pd.DataFrame
    audit: Mapping[str, Any] | None
    positive_class: str | None
    evaluation: ClinicalEvaluation
    metrics: Mapping[str, float]
    splits: Sequence[str] = SPLITS

    @property
    def absent_classes(self) -> dict[str, tuple[str, ...]]:
        """Slugs of the classes without images, by split, for the splits that lack any."""
        absent = {name: self.predictions.split(name).absent_classes for name in self.splits}
        return {name: missing for name, missing in absent.items() if missing}


def evaluate_run(
    config: Mapping[str, Any],
    predictions: Predictions,
    manifest: pd.DataFrame,
    *,
    audit: Mapping[str, Any] | None,
    positive_class: str | None,
    sensitivity: float,
    splits: Sequence[str] | None = None,
    costs: Mapping[str, float],
) -> EvaluatedRun:
    """Evaluate a trained run; its temperature and threshold are chosen on val.

    Args:
        sensitivity: the operating point's target on val, above 0 and below 1.
        splits: the splits that the network was applied to; None: all.
        costs: metrics of the training, which come before all others.

    Raises:
        ValueError: the positive class is not one of the classes.
    """
    evaluation = evaluate_clinically(
        predictions, positive_class, sensitivity=sensitivity, manifest=manifest
    )
    metrics = compute_run_metrics(predictions, positive_class, splits=splits)
    return EvaluatedRun(
        config=config,
        predictions=predictions,
        manifest=manifest,
        audit=audit,
        positive_class=positive_class,
        evaluation=evaluation,
        metrics={**costs, **metrics, **evaluation.metrics()},
        splits=splits or SPLITS,
    )


def evaluate_external_run(
    config: Mapping[str, Any],
    predictions: Predictions,
    manifest: pd.DataFrame,
    *,
    audit: Mapping[str, Any] | None,
    positive_class: str | None,
    rule: DecisionRule,
    counts: Mapping[str, float],
) -> EvaluatedRun:
    """Evaluate a model on the test images of another dataset, by the rule chosen in training.

    Args:
        config: the part of the configuration that the evaluation depends on.
        predictions: predictions of all images; those of other splits are saved but not measured.
        counts: metrics of the evaluation itself, which come after all others.

    Raises:
        ValueError: the rule's class is not one of the classes of the predictions.
    """
    evaluation = apply_decision_rule(predictions, rule, manifest=manifest)
    metrics = compute_split_metrics(predictions.split(TEST), positive_class)
    return EvaluatedRun(
        config=config,
        predictions=predictions,
        manifest=manifest,
        audit=audit,
        positive_class=positive_class,
        evaluation=evaluation,
        metrics={**metrics, **evaluation.metrics(), **counts},
        splits=(TEST,),
    )


@dataclass(frozen=True)
class ChanceCheck:
    """Result of the check of one run.

    Attributes:
        verdict: ``learned``, or ``at_chance`` if the run collapsed.
        reason: one sentence for the user.
    """

    verdict: Literal["learned", "at_chance"]
    reason: str


def compare_with_chance(predictions: Predictions) -> ChanceCheck:
    """Decide from a run's predictions whether it learned or stayed at chance.

    The check uses the training images in inference mode. Every network that learns anything is
    better than chance on them, so a collapsed run can be distinguished from one that does not
    generalise. (A run whose loss is no longer finite has diverged; the training loop reports that.)

    It stayed at chance if there is only one class; if at least ``ONE_ANSWER_SHARE`` of the training
    images are predicted as one class, unless that many truly are; or if neither its probabilities
    nor its predicted classes carry information about the images:

    * Probabilities: the log loss is less than the share ``MIN_EXPLAINED`` below the entropy of the
      classes, which is the log loss of the best constant prediction. This must be so both with
      images weighted equally and with classes weighted equally (whose entropy is the logarithm of
      their number): a network trained on balanced classes has another prior than the images, and
      may do worse than their prior although it distinguishes them well.
    * Predicted classes: (B - 1/K) / (1 - 1/K) is below ``MIN_SKILL``, for a balanced accuracy B
      over K present classes. An overconfident network may fail the first and pass the second.

    Raises:
        ValueError: there are no training images.
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
        return ChanceCheck(
            "at_chance", f"every training image is {only}: there are no classes to distinguish."
        )

    predicted_shares = np.bincount(training.predicted, minlength=len(slugs)) / len(y_true)
    k = int(predicted_shares.argmax())
    if predicted_shares[k] >= ONE_ANSWER_SHARE > class_shares[k]:
        return ChanceCheck(
            "at_chance",
            f"{format_percent(predicted_shares[k])} of the training images are predicted as "
            f"{slugs[k]}; {format_percent(class_shares[k])} truly are.",
        )

    losses = image_log_loss(y_true, y_score)
    entropy = _entropy(class_shares)
    class_losses = [losses[y_true == k].mean() for k in np.flatnonzero(class_counts)]
    explained = max(
        1 - losses.mean() / entropy,  # images weighted equally
        1 - np.mean(class_losses) / np.log(n_present),  # classes weighted equally
    )
    balanced = balanced_accuracy(y_true, y_score)
    chance = 1 / n_present
    skill = (balanced - chance) / (1 - chance)
    decisions = (
        f"balanced accuracy on the training images is {format_percent(balanced)} "
        f"({format_percent(chance)} is chance)"
    )
    if explained < MIN_EXPLAINED and skill < MIN_SKILL:
        return ChanceCheck(
            "at_chance",
            f"{decisions} and log loss {losses.mean():.3f}; predicting the class frequencies for "
            f"every image gives {entropy:.3f}.",
        )
    return ChanceCheck("learned", f"{decisions}.")


def _entropy(shares: NDArray[np.float64]) -> float:
    """Return the Shannon entropy of class shares that sum to one, in nats."""
    present = shares[shares > 0]
    return float(-np.sum(present * np.log(present)))
