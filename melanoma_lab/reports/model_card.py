"""Write the model card of a run as ``model_card.md`` and ``model_card.html``.

The sections are those of Mitchell et al., Model Cards for Model Reporting (FAT* 2019). This is the
card for people; ``tracking.logged_model`` is the one for programs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import replace_file
from melanoma_lab.core.formatting import (
    format_metric_interval,
    label_metric,
    label_split,
)
from melanoma_lab.core.untrusted_files import read_json, read_yaml
from melanoma_lab.core.version import __version__
from melanoma_lab.data.labels import get_positive_class
from melanoma_lab.data.tables import read_manifest
from melanoma_lab.evaluation.clinical_evaluation import (
    FEW_LESIONS,
    FEW_POSITIVE,
    ClinicalEvaluation,
    evaluate_clinically,
)
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import OperatingPoint, Temperature
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.evaluation.metric_intervals import (
    estimate_calibration,
    estimate_metrics,
    estimate_sensitivity,
    estimate_specificity,
)
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions
from melanoma_lab.reports import model_facts
from melanoma_lab.reports.rendering import render_template
from melanoma_lab.tracking.run_reader import RunIdentity, TrackedRun

PAGES: Final = ("model_card.md", "model_card.html")

#: Rows of a table, each a list of cells.
Rows = list[list[str]]


@dataclass(frozen=True)
class ModelCard:
    """What the card of a run says: texts, and rows of tables, in the order of its sections."""

    title: str
    run_id: str
    model_rows: Rows
    training_rows: Rows
    factors: str
    dataset_rows: Rows
    protocol: str
    splits: list[str]
    class_counts: Rows
    source_counts: Rows
    audit: list[str]
    evaluated_on: str
    metric_rows: Rows
    class_rows: Rows
    ece: str
    temperature: str
    calibration_rows: Rows
    operating_point: str
    point_rows: Rows
    has_positive_class: bool
    subgroup_rows: Rows
    limitations: list[str]
    few_lesions: int = FEW_LESIONS
    few_positive: int = FEW_POSITIVE
    version: str = __version__


def write_model_card(run: EvaluatedRun, identity: RunIdentity, folder: Path) -> None:
    """Write both pages of a run that is at hand into an existing folder."""
    card = asdict(build_model_card(run, identity))
    for name in PAGES:
        kind = Path(name).suffix
        content = {**card, "parts": f"model_card_parts{kind}.j2"}
        replace_file(folder / name, render_template("melanoma_lab.reports", "model_card", content))


def write_tracked_run_card(tracked: TrackedRun, folder: Path) -> None:
    """Write the model card of a tracked run into a folder, which is created if it is missing.

    Raises:
        UserError: the run lacks an artifact that a card needs; no folder is created.
    """
    run = load_evaluated_run(tracked)
    folder.mkdir(exist_ok=True)
    write_model_card(run, tracked, folder)


def load_evaluated_run(run: TrackedRun) -> EvaluatedRun:
    """Read a tracked run and evaluate it again; its metrics are the tracked ones.

    Raises:
        UserError: the run lacks an artifact that a card needs, or it cannot be read.
    """
    try:
        predictions = Predictions.read(run.require_artifact("predictions.csv"))
        config = read_yaml(run.require_artifact("config.yaml"))
        manifest = read_manifest(run.require_artifact("manifest.csv"))
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


def build_model_card(run: EvaluatedRun, identity: RunIdentity) -> ModelCard:
    """Build the content of both pages."""
    manifest, tags, evaluation = run.manifest, identity.tags, run.evaluation
    split, point = run.predictions.evaluated, evaluation.point
    before, after = (
        estimate_calibration(each) for each in (split, split.calibrate(evaluation.temperature))
    )
    return ModelCard(
        title=f"{tags.get('arm', 'a model')}, seed {tags.get('seed', '?')}",
        run_id=identity.run_id,
        model_rows=model_facts.describe_model(run, identity),
        training_rows=model_facts.describe_training(run, tags),
        factors=model_facts.describe_factors(manifest),
        dataset_rows=model_facts.describe_dataset(manifest, tags),
        protocol=model_facts.describe_split_protocol(run.config, tags),
        splits=[label_split(each) for each in model_facts.list_splits(manifest)],
        class_counts=model_facts.count_classes(manifest, split.slugs),
        source_counts=model_facts.count_sources(manifest),
        audit=model_facts.describe_audit(run.audit, tags),
        evaluated_on=label_split(split.name),
        metric_rows=[
            [label_metric(name), _format_estimate(name, estimate)]
            for name, estimate in estimate_metrics(split, run.positive_class).items()
        ],
        class_rows=_build_class_rows(split),
        ece=_format_estimate("ece", after["ece"]),
        temperature=_describe_temperature(evaluation.temperature),
        calibration_rows=[
            [label_metric(name), *(_format_estimate(name, each[name]) for each in (before, after))]
            for name in before
        ],
        operating_point=_describe_point(point),
        point_rows=_build_point_rows(point),
        has_positive_class=point is not None,
        subgroup_rows=_build_subgroup_rows(evaluation),
        limitations=list(model_facts.describe_limitations(run, tags)),
    )


def _build_class_rows(split: SplitPredictions) -> Rows:
    """Return each class with its size in the evaluated split, sensitivity and specificity."""
    rows = []
    for slug in split.slugs:
        positive, _ = split.one_vs_rest(slug)
        rows.append(
            [
                slug.replace("_", " "),
                f"{np.count_nonzero(positive):,} ({len(np.unique(split.groups[positive])):,})",
                _format_share(estimate_sensitivity(split, slug)),
                _format_share(estimate_specificity(split, slug)),
            ]
        )
    return rows


def _describe_temperature(temperature: Temperature) -> str:
    if temperature.why_not:
        return f"No temperature was fitted: {temperature.why_not}."
    sure = "overconfident" if temperature.value > 1 else "underconfident"
    return (
        f"Temperature {temperature.value:.2f}, fitted to {temperature.n:,} validation images: the "
        f"network is {sure}. It changes no decision and is not part of the model itself."
    )


def _describe_point(point: OperatingPoint | None) -> str:
    if point is None:
        return (
            "The dataset has no positive class (dataset.positive_class), so no operating "
            "point was chosen."
        )
    if np.isnan(point.threshold):
        return (
            "The validation split has no image of the positive class, so no operating point "
            "could be chosen."
        )
    return (
        f"An image counts as {point.slug.replace('_', ' ')} if its calibrated probability is at "
        f"least {point.threshold:.3g}: the largest threshold with a sensitivity of "
        f"{100 * point.target:g} % on the validation split."
    )


def _build_point_rows(point: OperatingPoint | None) -> Rows:
    if point is None or np.isnan(point.threshold):
        return []
    return [
        [
            label_split(split) + (" (chosen on)" if split == "val" else ""),
            f"{rates.positive_images:,} ({rates.positive_lesions:,})",
            *(
                _format_share(each)
                for each in (rates.sensitivity, rates.specificity, rates.ppv, rates.npv)
            ),
        ]
        for split, rates in point.rates.items()
    ]


def _build_subgroup_rows(evaluation: ClinicalEvaluation) -> Rows:
    """Return a row for each measured subgroup; subgroups of few lesions are marked."""
    table = evaluation.subgroups
    rows = []
    for row in table.to_dict("records"):
        name = "all" if row["column"] == "all" else f"{row['column']}: {row['value']}"
        lesions = row["n_melanoma_lesions"]
        cells = [name, f"{row['n_images']:,} ({row['n_lesions']:,})"]
        if evaluation.point is not None:
            cells.append("" if lesions is None else str(lesions))
        cells += [_format_cell(row, "balanced_accuracy")]
        if evaluation.point is not None:
            cells += [_format_cell(row, "sensitivity"), _format_cell(row, "specificity")]
        rows.append([*cells, "few" if row["few"] else ""])
    return rows


def _format_cell(row: dict[Any, Any], name: str) -> str:
    return _format_share(IntervalEstimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def _format_estimate(metric: str, estimate: IntervalEstimate) -> str:
    return format_metric_interval(metric, estimate.value, estimate.low, estimate.high)


def _format_share(estimate: IntervalEstimate) -> str:
    """Format a share in per cent with its interval; return an empty text if it is undefined."""
    return "" if np.isnan(estimate.value) else _format_estimate("accuracy", estimate)
