"""Load a tracked run from its artifacts, and write its model card."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import read_json, read_yaml
from melanoma_lab.data.labels import get_positive_class
from melanoma_lab.data.untrusted_tables import read_manifest
from melanoma_lab.evaluation.clinical_evaluation import evaluate_clinically
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.model_card.content import write_model_card
from melanoma_lab.tracking.run_reader import TrackedRun


def load_evaluated_run(run: TrackedRun) -> EvaluatedRun:
    """Read a tracked run and evaluate it again; its metrics are the tracked ones.

    Raises:
        UserError: the run lacks an artifact that a card needs, or it cannot be read.
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
    positive_class = get_positive_class(config)
    if positive_class not in predictions.slugs:
        positive_class = None
    sensitivity = config.get("evaluation", {}).get("sensitivity", Evaluation.sensitivity)
    return EvaluatedRun(
        config=config,
        predictions=predictions,
        manifest=manifest,
        audit=audit,
        positive_class=positive_class,
        evaluation=evaluate_clinically(
            predictions, positive_class, sensitivity=sensitivity, manifest=manifest
        ),
        metrics=run.metrics,
        splits=predictions.splits,
    )


def write_tracked_run_card(tracked: TrackedRun, folder: Path) -> None:
    """Write the model card of a tracked run into a folder, which is created if it is missing.

    Raises:
        UserError: the run lacks an artifact that a card needs; no folder is created.
    """
    run = load_evaluated_run(tracked)
    folder.mkdir(exist_ok=True)
    write_model_card(run, tracked, folder)
