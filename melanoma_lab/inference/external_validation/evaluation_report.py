"""What an external validation reports: a run with tags, metrics, tables and figures; messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import Predefined
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS, OnOverlap
from melanoma_lab.core.console import console, show_note
from melanoma_lab.core.files import hash_file, hash_text
from melanoma_lab.core.formatting import format_percent, slugify
from melanoma_lab.core.version import __version__, git_commit
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule, Temperature
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, evaluate_external_run
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.out_of_distribution import WITHIN
from melanoma_lab.evaluation.predictions import build_predictions
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TRAINED_ON_KEY
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.predictor import PredictionBatch
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.reports.explained_images import build_run_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportFigures, RunReport, log_report
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.tracking.run_reader import TrackedRun
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
#: Styles of messages.
LOUD, NOTE = "bold red", "yellow"
#: Decision rule for a model that was saved without one.
NO_ADVICE = DecisionRule(Temperature(1.0, 0, "no temperature was saved with the model"))


@dataclass(frozen=True)
class ExternalEvaluation:
    """A model and the images to evaluate it on, before it is applied.

    Attributes:
        config: the checked configuration, with the model's image size.
        source: where the model comes from.
        card: the description that the model was saved with.
        run: the run that trained the model; None if it was not found.
        data: the images whose class the model has; their split is ``test`` if the model is
            evaluated on them, else the one that they had in its training.
        encoding: encoder of the model's patient metadata; None if it takes only images.
        matched: class of the model by class of the dataset, None if the class is left out.
        shown: the role of each image in the model's training; None if that is unknown.
    """

    config: Config
    source: ModelSource
    card: ModelInfo
    run: TrackedRun | None
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
    run, roles = evaluated.run, evaluated.shown
    tags = {} if run is None else run.tags
    kept = config.evaluation.overlap is OnOverlap.keep
    settings = config_to_dict(config)["evaluation"]
    identity = [
        *("evaluation", hash_file(source.network), data.digest, config.split.name),
        {key: settings[key] for key in ("classes", "overlap", "lesions")},
    ]
    protocol, overlap = "unknown", "not looked for"
    if roles is not None:
        protocol = "leaking" if kept and roles.seen.any() else data.protocol
        done = "kept" if kept else "left out"
        overlap = f"{roles.seen.sum()} of {len(roles.seen)} images {done}"
    return {
        "study": config.study,
        EVALUATION_TAG: "external",
        EVALUATED_TAG: source.typed if run is None else run.run_id,
        **{new: tags[old] for old, new in MODEL_TAGS.items() if old in tags},
        "evaluated_dataset": evaluated.card.dataset,
        "dataset": config.dataset.name,
        "dataset_digest": data.digest,
        "audit_digest": data.findings.digest,
        "fingerprint": hash_text(json.dumps(identity), 16),
        "protocol": protocol,
        "grouped_by": ", ".join(data.grouped_by),
        "overlap": overlap,
        "notes": " ".join(data.notes),
        "git_commit": git_commit(),
        "melanoma_lab": __version__,
    }


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


def report_evaluation(
    evaluated: ExternalEvaluation, answers: PredictionBatch, tracker: Tracker, network: Any
) -> None:
    """Evaluate a model's predictions, track them and print the results; choose nothing by them.

    The tracker's run has begun; the network is needed for its heat maps.
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
    own = {} if evaluated.run is None else evaluated.run.metrics
    _show_metrics({config.dataset.name: run.metrics, "its own test split": own}, interval)
    run_messages.show_absent_classes(run.absent_classes, len(card.slugs))
    run_messages.show_clinical_evaluation(run.evaluation)
    if answers.unlike is not None:
        n, n_unlike = int(run.metrics["images"]), int(run.metrics["images_unlike_training"])
        console.print(
            f"{n_unlike:,} of {n:,} images ({format_percent(n_unlike / n)}) look unlike the "
            f"training images; {format_percent(1 - WITHIN, 0)} are expected of images like those.",
            style=NOTE if n_unlike > 2 * (1 - WITHIN) * n else "",
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


def show_dataset(data: PreparedData, name: str, matched: Mapping[str, str | None]) -> None:
    """Print the dataset's size, its notes, and its classes that are mapped or left out."""
    groups = data.manifest["group"].nunique()
    console.print(
        f"{name}: {len(data.manifest):,} images in {groups:,} groups, {len(data.classes)} classes",
        markup=False,
    )
    notes = [*data.notes, *([data.unresolved] if data.unresolved else [])]
    sizes = data.manifest["label"].value_counts()
    for class_name, to in matched.items():
        images = f"{class_name!r} ({sizes.get(class_name, 0):,} images)"
        if to is None:
            notes.append(f"{images} are left out: the model does not have this class.")
        elif to != slugify(class_name):
            notes.append(f"{images} are mapped to the model's {to}.")
    for note in notes:
        show_note(f"  {note}")


def show_training_overlap(
    roles: ImageRoles | None, known: pd.DataFrame | None, *, kept: bool
) -> None:
    """Print which images the model has seen in its training.

    ``known`` are the images from ``find_known_images``; ``kept`` says whether seen images are
    evaluated all the same. What is unknown is None.
    """
    if roles is None or known is None:
        console.print(
            "  Overlap with the training images was not checked: the model's training images "
            "are unknown. Metrics may include images that the model has seen. Name their "
            f"folder: {TRAINED_ON_KEY}=DIR.",
            style=LOUD,
            markup=False,
        )
        return
    n = int(roles.seen.sum())
    splits = ", ".join(f"{(roles.role == role).sum():,} {role}" for role in (TRAIN, VAL))
    if n:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in roles.counts().items())
        console.print(
            f"  {n:,} of {len(roles.seen):,} images overlap with the model's training or "
            f"validation images ({splits}): {kinds}. "
            + (
                "They are kept (evaluation.overlap=keep): metrics are too optimistic."
                if kept
                else "They are left out."
            ),
            style=LOUD if kept else NOTE,
            markup=False,
        )
    else:
        console.print(
            "  None of these images overlaps with the model's training or validation images."
        )
    n_own = int((roles.role == TEST).sum())
    if n_own:
        console.print(
            "  Of lesions in its own test split, never seen but from the same source: "
            f"{n_own:,} images.",
            style=NOTE,
        )
    missing = int((known["path"] == "").sum())
    if missing:
        console.print(
            f"  Near-identical images were not searched among {missing:,} of the "
            f"{len(known):,} images of the model's run: they have been moved or changed. "
            "Identical files, archive ids and lesions were compared. Name the folder of the "
            f"images: {TRAINED_ON_KEY}=DIR.",
            style=LOUD,
            markup=False,
        )


def _show_metrics(metrics: Mapping[str, Mapping[str, float]], interval: IntervalEstimate) -> None:
    """Print the metrics of test by the title of their column; leave out those not known."""
    columns = {
        title: {key.removeprefix("test/"): value for key, value in each.items() if "test/" in key}
        for title, each in metrics.items()
    }
    run_messages.show_metric_table({title: each for title, each in columns.items() if each})
    if not np.isnan(interval.value):
        console.print(
            f"\nbalanced accuracy {format_percent(interval.value)}, 95 % interval over lesions "
            f"{format_percent(interval.low)} to {format_percent(interval.high)}"
        )
