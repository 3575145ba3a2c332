"""What a model says of another dataset, as the metrics, tables and plots of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_progress
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.clinical_evaluation import (
    ClinicalEvaluation,
    apply_decision_rule,
)
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import Predictions, build_predictions
from melanoma_lab.evaluation.run_metrics import compute_split_metrics, find_absent_classes
from melanoma_lab.evaluation.temperature import Temperature
from melanoma_lab.inference.external_validation import evaluation_messages, evaluation_tags
from melanoma_lab.inference.external_validation.dataset_predictions import DatasetPredictions
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TrainingRun
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.plots.run_figures import save_run_figures
from melanoma_lab.reports.error_analysis.analysis import write_error_analysis
from melanoma_lab.reports.error_analysis.explainers import build_run_explainer
from melanoma_lab.runs import run_messages
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
    def melanoma(self) -> str | None:
        """The model's class that is reported on its own."""
        return self.card.melanoma or self.matched.get(self.config.dataset.melanoma or "")


def report_evaluation(
    evaluated: ExternalEvaluation, answers: DatasetPredictions, tracker: Tracker, network: Any
) -> None:
    """Measure, draw, keep and show what an evaluation comes to; nothing is chosen by it.

    Args:
        evaluated: the model and the images.
        answers: to all of these.
        tracker: whose run has begun.
        network: the Keras model, for its maps.
    """
    data, card = evaluated.data, evaluated.card
    manifest = data.manifest
    predictions = build_predictions(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels,
        probabilities=answers.probabilities,
        slugs=card.slugs,
    )
    judged = (manifest["split"] == TEST).to_numpy()
    advice = evaluated.source.advice or NO_ADVICE
    if advice.slug not in card.slugs:
        advice = replace(advice, slug="")
    judgement = apply_decision_rule(predictions, advice, manifest=manifest)
    test = predictions.split(TEST)
    interval = INTERVALS["balanced_accuracy"](test)
    metrics = compute_split_metrics(test, evaluated.melanoma) | judgement.metrics()
    metrics |= {
        "test/balanced_accuracy_low": interval.low,
        "test/balanced_accuracy_high": interval.high,
        "images": float(judged.sum()),
        "groups": float(manifest.loc[judged, "group"].nunique()),
    }
    if evaluated.shown is not None:
        metrics["images_seen"] = float(evaluated.shown.seen.sum())
    if answers.unlike is not None:
        metrics["images_unlike_training"] = float((answers.unlike[judged] > 1).sum())
    absent = find_absent_classes(predictions, [TEST])
    tracker.log_metrics(metrics)
    tracker.set_tags({f"absent/{split}": ", ".join(slugs) for split, slugs in absent.items()})
    with tempfile.TemporaryDirectory() as scratch:
        with show_progress("drawing figures"):
            _keep(Path(scratch), evaluated, answers, predictions, judgement)
            write_error_analysis(
                Path(scratch),
                name=tracker.run_name,
                table=predictions.table,
                judgement=judgement,
                melanoma=evaluated.melanoma,
                manifest=manifest,
                audit=data.findings.as_json(),
                looking=(
                    build_run_explainer(data, network, evaluated.encoding)
                    if evaluated.config.tracking.images
                    else None
                ),
            )
        tracker.log_folder(Path(scratch))
    evaluation_messages.show_evaluation_metrics(
        metrics, evaluated.run, evaluated.config.dataset.name, interval
    )
    run_messages.show_absent_classes(absent, len(card.slugs))
    run_messages.show_clinical_evaluation(judgement)
    if answers.unlike is not None:
        evaluation_messages.show_unlike_share(
            int(metrics["images_unlike_training"]), int(judged.sum())
        )


def _keep(
    folder: Path,
    evaluated: ExternalEvaluation,
    answers: DatasetPredictions,
    predictions: Predictions,
    judgement: ClinicalEvaluation,
) -> None:
    """Write what a run of an evaluation has beside its figures."""
    data, config = evaluated.data, evaluated.config
    plain = evaluation_tags.build_evaluation_params(config, evaluated.matched)
    OmegaConf.save(OmegaConf.create(plain), folder / "config.yaml")
    predictions.write(folder / "predictions.csv")
    manifest = data.manifest
    if answers.unlike is not None:
        manifest = manifest.assign(unlike_training=answers.unlike)
    if evaluated.shown is not None:
        shown = evaluated.shown
        manifest = manifest.assign(known_as=shown.role, known_by=shown.kind)
        shown.links.to_csv(folder / "overlap.csv", index=False)
    manifest.to_csv(folder / "manifest.csv", index=False)
    data.findings.write(folder / "audit.json")
    judgement.write(folder)
    save_run_figures(
        folder / "plots",
        predictions=predictions,
        melanoma=evaluated.melanoma,
        judgement=judgement,
        shown_as=config.dataset.name,
    )
