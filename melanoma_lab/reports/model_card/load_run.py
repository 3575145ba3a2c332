"""Write the model card of a run that is tracked, from what it has kept."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import read_json, read_yaml
from melanoma_lab.data.untrusted_tables import read_manifest
from melanoma_lab.evaluation.clinical_evaluation import evaluate_clinically
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.input_pipeline.prepare import slugify
from melanoma_lab.reports.model_card.content import write_model_card
from melanoma_lab.reports.model_card.run_identity import RunIdentity
from melanoma_lab.tracking.run_reader import TrackedRun


def load_evaluated_run(run: TrackedRun) -> EvaluatedRun:
    """Read a tracked run and evaluate it again; its metrics are those that were tracked.

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
    named = config.get("dataset", {}).get("positive_class")
    positive_class = slugify(named) if named else None
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
    """Write the model card of a tracked run into a folder, which is made if it is not there.

    Raises:
        UserError: the run has not kept what a card is written from; no folder is made.
    """
    run = load_evaluated_run(tracked)
    folder.mkdir(exist_ok=True)
    identity = RunIdentity(tracked.run_id, tracked.start_time, tracked.tags)
    write_model_card(run, identity, folder)
