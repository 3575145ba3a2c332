"""A run with all data for its pages, figures and tables."""

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
)


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run's predictions, their evaluation, and the description of its images.

    Attributes:
        config: the resolved configuration as plain containers, as in ``config.yaml``.
        predictions: of all images that the network was applied to.
        manifest: the table of images, with image_id, group and split.
        audit: the result of the audit, as in ``audit.json``; None if it was not saved.
        positive_class: slug of the class that is reported separately; None if there is none. In an
            external evaluation it is the model's positive class.
        evaluation: calibration, operating point and subgroups.
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
        config: the resolved configuration.
        predictions: predictions of the run's splits.
        manifest: the table of images.
        audit: the result of the audit.
        positive_class: slug of the class that is reported separately; None if there is none.
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
        manifest: the table of images.
        audit: the result of the audit.
        positive_class: the model's class that is reported separately; None if there is none.
        rule: temperature and threshold that were chosen when the model was trained.
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
