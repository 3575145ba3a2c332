"""The report of a model on another dataset: a run with tags, metrics, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS, OnOverlap
from melanoma_lab.config.schema.split import Predefined
from melanoma_lab.core.checksums import hash_file, hash_text
from melanoma_lab.core.version import __version__
from melanoma_lab.data.labels import slugify
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule, Temperature
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, evaluate_external_run
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import build_predictions
from melanoma_lab.inference.external_validation import evaluation_messages
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TrainingRun
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.predictor import PredictionBatch
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.reports.error_analysis.explained_images import build_run_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportFigures, RunReport, log_report
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.provenance import git_commit
from melanoma_lab.tracking.tracker import Tracker

#: Tag of the run of an evaluation: the kind of evaluation.
EVALUATION_TAG = "evaluation"
#: Name of a tag in an evaluation by its name in the model's run; with the tags ``arm`` and ``seed``
#: the evaluation would count as a run of that arm.
MODEL_TAGS = {
    "arm": "evaluated_arm",
    "seed": "evaluated_seed",
    "study": "evaluated_study",
    "fingerprint": "evaluated_fingerprint",
    "dataset_digest": "evaluated_dataset_digest",
}
#: Decision rule for a model that was saved without one.
NO_ADVICE = DecisionRule(Temperature(1.0, 0, "no temperature was saved with the model"))


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


def build_evaluation_tags(evaluated: ExternalEvaluation) -> dict[str, str]:
    """Return the tags by which an evaluation is searched and grouped; it has no arm."""
    config, source, data = evaluated.config, evaluated.source, evaluated.data
    tags = evaluated.run.tags
    kept = config.evaluation.overlap is OnOverlap.keep
    return {
        "study": config.study,
        EVALUATION_TAG: "external",
        EVALUATED_TAG: evaluated.run.run_id or source.typed,
        **{new: tags[old] for old, new in MODEL_TAGS.items() if old in tags},
        "evaluated_dataset": evaluated.card.dataset,
        "dataset": config.dataset.name,
        "dataset_digest": data.digest,
        "audit_digest": data.findings.digest,
        "fingerprint": _fingerprint(config, source, data),
        "protocol": _decide_protocol(evaluated.shown, data, kept=kept),
        "grouped_by": ", ".join(data.grouped_by),
        "overlap": _describe_overlap(evaluated.shown, kept=kept),
        "notes": " ".join(data.notes),
        "git_commit": git_commit(),
        "melanoma_lab": __version__,
    }


def _decide_protocol(roles: ImageRoles | None, data: PreparedData, *, kept: bool) -> str:
    """Return the protocol of an evaluation.

    It is ``leaking`` if seen images are evaluated, ``unknown`` if it is unknown which images were
    seen, and else that of the dataset.
    """
    if roles is None:
        return "unknown"
    return "leaking" if kept and roles.seen.any() else data.protocol


def _describe_overlap(roles: ImageRoles | None, *, kept: bool) -> str:
    """Describe in one line how many images were seen, and whether they are kept."""
    if roles is None:
        return "not looked for"
    return f"{roles.seen.sum()} of {len(roles.seen)} images {'kept' if kept else 'left out'}"


def build_evaluation_params(evaluated: ExternalEvaluation) -> dict[str, Any]:
    """Return the part of the configuration that an evaluation depends on, as plain containers."""
    config = evaluated.config
    plain = config_to_dict(config)
    return {
        "task": plain["task"],
        "study": plain["study"],
        "model": plain["model"],
        "dataset": plain["dataset"],
        "split": config.split.name if isinstance(config.split, Predefined) else "all",
        "evaluation": {key: plain["evaluation"][key] for key in EVALUATE_KEYS}
        | {"classes": {slugify(name): to for name, to in evaluated.matched.items()}},
    }


def name_evaluation(tags: Mapping[str, str]) -> str:
    """Return the name of an evaluation in MLflow's list of runs."""
    model = f"model of {tags['evaluated_dataset']}" if tags["evaluated_dataset"] else "model"
    if "evaluated_arm" in tags:
        model = format_run_name(tags["evaluated_arm"], int(tags.get("evaluated_seed", 0)), 0)
    return f"on {tags['dataset']}: {model}"


def _fingerprint(config: Config, source: ModelSource, data: PreparedData) -> str:
    """Return a hash of the model, the images and the settings of the evaluation."""
    network = hash_file(source.network)
    settings = {
        key: config_to_dict(config)["evaluation"][key] for key in ("classes", "overlap", "lesions")
    }
    text = json.dumps(["evaluation", network, data.digest, config.split.name, settings])
    return hash_text(text, 16)


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
        build_evaluation_params(evaluated),
        predictions,
        manifest,
        audit=data.findings.as_json(),
        positive_class=evaluated.positive_class,
        rule=rule if rule.slug in evaluated.card.slugs else replace(rule, slug=""),
        counts=counts,
    )
    return run, interval
