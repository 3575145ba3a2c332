"""Report what a model says of another dataset, as a run with metrics, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, evaluate_external_run
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import build_predictions
from melanoma_lab.evaluation.temperature import Temperature
from melanoma_lab.inference.external_validation import evaluation_messages, evaluation_tags
from melanoma_lab.inference.external_validation.dataset_predictions import DatasetPredictions
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TrainingRun
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.reports.error_analysis.explainers import build_run_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportFigures, RunReport, log_report
from melanoma_lab.tracking import Tracker
from melanoma_lab.tracking.model_info import ModelInfo

#: Of a model that says nothing of how its answers are to be read.
NO_ADVICE = DecisionRule(Temperature(1.0, 0, "the model does not say what was fitted to it"))


@dataclass(frozen=True)
class ExternalEvaluation:
    """A model and the images that it is applied to, before it is.

    Attributes:
        config: the checked configuration, with the size of images that the model takes.
        source: the model's.
        card: what it says about itself.
        run: that trained it, as far as it is found.
        data: the images of classes that the model has; their split is ``test`` where they are
            judged, else what they were to the model.
        encoding: of what the model takes of patients; None where it takes images alone.
        matched: class of the dataset -> class of the model, None where it is left out.
        shown: what each image has been to the model; None where nothing says it.
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
        """The model's class that is reported on its own."""
        return self.card.positive_class or self.matched.get(
            self.config.dataset.positive_class or ""
        )


def report_evaluation(
    evaluated: ExternalEvaluation, answers: DatasetPredictions, tracker: Tracker, network: Any
) -> None:
    """Evaluate, keep and show what a model says of the images; nothing is chosen by it.

    Args:
        evaluated: the model and the images.
        answers: to all of these.
        tracker: whose run has begun.
        network: the Keras model, for its maps.
    """
    config, card, shown = evaluated.config, evaluated.card, evaluated.shown
    run, interval = _evaluate(evaluated, answers)
    columns: dict[str, Any] = {}
    files = {"audit.json": evaluated.data.findings.to_text()}
    if answers.unlike is not None:
        columns["unlike_training"] = answers.unlike
    if shown is not None:
        columns |= {"known_as": shown.role, "known_by": shown.kind}
        files["overlap.csv"] = shown.links.to_csv(index=False)
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
    evaluated: ExternalEvaluation, answers: DatasetPredictions
) -> tuple[EvaluatedRun, IntervalEstimate]:
    """Evaluate the answers; return also the balanced accuracy with its interval."""
    data, manifest = evaluated.data, evaluated.data.manifest
    predictions = build_predictions(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels,
        probabilities=answers.probabilities,
        slugs=evaluated.card.slugs,
    )
    judged = (manifest["split"] == TEST).to_numpy()
    interval = INTERVALS["balanced_accuracy"](predictions.split(TEST))
    counts = {
        "test/balanced_accuracy_low": interval.low,
        "test/balanced_accuracy_high": interval.high,
        "images": float(judged.sum()),
        "groups": float(manifest.loc[judged, "group"].nunique()),
    }
    if evaluated.shown is not None:
        counts["images_seen"] = float(evaluated.shown.seen.sum())
    if answers.unlike is not None:
        counts["images_unlike_training"] = float((answers.unlike[judged] > 1).sum())
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
