"""What a model card is written from: a run's tables, configuration and tags, however old it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import read_json, read_yaml
from melanoma_lab.data.untrusted_tables import read_manifest
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation, evaluate_clinically
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.input_pipeline.prepare import slugify
from melanoma_lab.tracking.run_reader import TrackedRun


@dataclass(frozen=True)
class ModelCardData:
    """A run, as its card needs it.

    Attributes:
        run_id: MLflow's.
        day: on which it began, ISO.
        tags: as tracked.
        metrics: the last value of each.
        config: resolved, as plain containers.
        predictions: its own.
        manifest: its table of images.
        melanoma: slug of the melanoma class; None where the dataset names none.
        audit: what the audit found, as ``audit.json`` has it; None where it was not kept.
        judgement: calibration, operating point and subgroups.
    """

    run_id: str
    day: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    predictions: Predictions
    manifest: pd.DataFrame
    melanoma: str | None
    audit: Mapping[str, Any] | None
    judgement: ClinicalEvaluation


def load_card_data(run: TrackedRun) -> ModelCardData:
    """Read a tracked run.

    Raises:
        UserError: it has not kept what a card is written from.
    """
    try:
        predictions = Predictions.read(run.require_artifact("predictions.csv"))
        config = read_yaml(run.require_artifact("config.yaml"))
        manifest = read_manifest(run.require_artifact("manifest.csv"))
        if "age" in manifest:
            manifest["age"] = pd.to_numeric(manifest["age"])
        found = run.artifact("audit.json")
        audit = None if found is None else read_json(found)
    except (OSError, ValueError) as error:
        raise UserError(f"run {run.run_id}: cannot be described: {error}") from error
    named = config.get("dataset", {}).get("melanoma")
    melanoma = slugify(named) if named else None
    if melanoma not in predictions.slugs:
        melanoma = None
    sensitivity = config.get("evaluation", {}).get("sensitivity", Evaluation.sensitivity)
    return ModelCardData(
        run_id=run.run_id,
        day=format_day(run.start_time),
        tags=run.tags,
        metrics=run.metrics,
        config=config,
        predictions=predictions,
        manifest=manifest,
        melanoma=melanoma,
        audit=audit,
        judgement=evaluate_clinically(
            predictions, melanoma, sensitivity=sensitivity, manifest=manifest
        ),
    )


def format_day(milliseconds: int) -> str:
    """The day of a time since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
