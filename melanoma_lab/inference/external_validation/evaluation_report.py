"""The report of a model on another dataset: a run with metrics, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.calibration import Temperature
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, evaluate_external_run
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import build_predictions
from melanoma_lab.inference.external_validation import evaluation_messages, evaluation_tags
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TrainingRun
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.predictor import PredictionBatch
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.reports.error_analysis.explained_images import build_run_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportFigures, RunReport, log_report
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.tracker import Tracker

#: Decision rule for a model that was saved without one.
NO_ADVICE = DecisionRule(Temperature(1.0, 0, "the model does not say what was fitted to it"))


@dataclass(frozen=True)
class ExternalEvaluation:
    """A model and the images to evaluate it on, before it is applied.

    Attributes:
        config: the checked configuration, with the model's image size.
        source: where the model comes from.
        card: the description that the model was saved with.
        run: the run that trained the model, as far as it was found.
        data: the images whose class the model has; their split is ``test`` if the model is
            evaluated on them, else the one that they had in its training.
        encoding: encoder of the model's patient metadata; None if it takes only images.
        matched: class of the model by class of the dataset, None if the class is left out.
        shown: the role of each image in the model's training; None if that is unknown.
    """

    config: Config
    source: ModelSource
    card: ModelInfo
    run: TrainingRun
    data: PreparedData
    encoding: PatientEncoder | None
    matched: Mapping[str, str | None]
    shown: ImageRoles | None

    @property
    def positive_class(self) -> str | None:
        """Slug of the model's class that is reported separately; None if there is none."""
        return self.card.positive_class or self.matched.get(
            self.config.dataset.positive_class or ""
        )


def report_evaluation(
    evaluated: ExternalEvaluation, answers: PredictionBatch, tracker: Tracker, network: Any
) -> None:
    """Evaluate a model's predictions, track them and print the results; choose nothing by them.

    Args:
        evaluated: the model and the images.
        answers: the predictions of all images.
        tracker: the tracker, whose run has begun.
        network: the Keras model, for its heat maps.
    """
    config, card, roles = evaluated.config, evaluated.card, evaluated.shown
    run, interval = _evaluate(evaluated, answers)
    columns: dict[str, Any] = {}
    files = {"audit.json": evaluated.data.findings.to_text()}
    if answers.unlike is not None:
        columns["unlike_training"] = answers.unlike
    if roles is not None:
        columns |= {"known_as": roles.role, "known_by": roles.kind}
        files["overlap.csv"] = roles.links.to_csv(index=False)
    explainer = build_run_explainer(evaluated.data, network, evaluated.encoding)
    figures = ReportFigures(
        explainer=explainer if config.tracking.images else None, title=config.dataset.name
    )
    log_report(RunReport(run, figures=figures, manifest_columns=columns, files=files), tracker)
    evaluation_messages.show_evaluation_metrics(
        run.metrics, evaluated.run, config.dataset.name, interval
    )
    run_messages.show_absent_classes(run.absent_classes, len(card.slugs))
    run_messages.show_clinical_evaluation(run.evaluation)
    if answers.unlike is not None:
        evaluation_messages.show_unlike_share(
            int(run.metrics["images_unlike_training"]), int(run.metrics["images"])
        )


def _evaluate(
    evaluated: ExternalEvaluation, answers: PredictionBatch
) -> tuple[EvaluatedRun, IntervalEstimate]:
    """Evaluate the predictions; return also the balanced accuracy with its interval."""
    data, manifest = evaluated.data, evaluated.data.manifest
    predictions = build_predictions(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels,
        probabilities=answers.probabilities,
        slugs=evaluated.card.slugs,
    )
    tested = (manifest["split"] == TEST).to_numpy()
    interval = INTERVALS["balanced_accuracy"](predictions.split(TEST))
    counts = {
        "test/balanced_accuracy_low": interval.low,
        "test/balanced_accuracy_high": interval.high,
        "images": float(tested.sum()),
        "groups": float(manifest.loc[tested, "group"].nunique()),
    }
    if evaluated.shown is not None:
        counts["images_seen"] = float(evaluated.shown.seen.sum())
    if answers.unlike is not None:
        counts["images_unlike_training"] = float((answers.unlike[tested] > 1).sum())
    rule = evaluated.source.advice or NO_ADVICE
    run = evaluate_external_run(
        evaluation_tags.build_evaluation_params(evaluated.config, evaluated.matched),
        predictions,
        manifest,
        audit=data.findings.as_json(),
        positive_class=evaluated.positive_class,
        rule=rule if rule.slug in evaluated.card.slugs else replace(rule, slug=""),
        counts=counts,
    )
    return run, interval
