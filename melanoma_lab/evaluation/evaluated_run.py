"""A run with all that its pages, figures and tables are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from melanoma_lab.data.split import SPLITS, TEST
from melanoma_lab.evaluation.clinical_evaluation import (
    ClinicalEvaluation,
    apply_decision_rule,
    evaluate_clinically,
)
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.evaluation.run_metrics import (
    compute_run_metrics,
    compute_split_metrics,
    find_absent_classes,
)


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run's predictions, their evaluation, and what is known of its images.

    Attributes:
        config: the resolved configuration as plain containers, as in ``config.yaml``.
        predictions: of all images that the network was applied to.
        manifest: the table of images, with image_id, group and split.
        audit: what the audit found, as in ``audit.json``; None if it was not kept.
        positive_class: slug of the class that is reported on its own; None if there is none. In an
            external evaluation it is the model's.
        evaluation: calibration, operating point and subgroups.
        metrics: by name; of a run that was tracked before, those that were tracked.
        splits: those whose metrics were computed.
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
        """The slugs of the classes that a split has no image of, for the splits that lack some."""
        return find_absent_classes(self.predictions, self.splits)


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
    """Evaluate a run that was trained here; temperature and threshold are chosen on val.

    Args:
        config: the resolved configuration.
        predictions: of its splits.
        manifest: the table of images.
        audit: what the audit found.
        positive_class: slug of the class that is reported on its own; None if there is none.
        sensitivity: the operating point's target on val, above 0 and below 1.
        splits: those that the network was applied to; None: all.
        costs: metrics of the training, which come before all others.

    Raises:
        ValueError: the positive class is none of the classes.
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
    """Evaluate a model on the test images of another dataset; nothing is chosen.

    Args:
        config: the part of the configuration that the evaluation depends on.
        predictions: of all images; those of other splits are kept and not measured.
        manifest: the table of images.
        audit: what the audit found.
        positive_class: the model's class that is reported on its own; None if there is none.
        rule: temperature and threshold, as they were chosen when the model was trained.
        counts: metrics of the evaluation itself, which come after all others.

    Raises:
        ValueError: the rule is of a class that the predictions do not have.
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
