"""Write the model card of a run as ``model_card.md`` and ``model_card.html``.

The sections are those of Mitchell et al., Model Cards for Model Reporting (FAT* 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.formatting import format_metric, label_metric, label_split
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.evaluation.metric_intervals import (
    estimate_calibration,
    estimate_metrics,
    estimate_sensitivity,
    estimate_specificity,
)
from melanoma_lab.evaluation.operating_point import OperatingPoint
from melanoma_lab.evaluation.predictions import SplitPredictions
from melanoma_lab.evaluation.subgroups import FEW_LESIONS, FEW_POSITIVE
from melanoma_lab.evaluation.temperature import Temperature
from melanoma_lab.reports.model_card import data_sections, limitations, training_sections
from melanoma_lab.reports.model_card.run_identity import RunIdentity
from melanoma_lab.reports.rendering import render_template

PAGES: Final = ("model_card.md", "model_card.html")

INTENDED = [
    (
        "To study what helps a classifier of skin lesions, and to be compared with others on the "
        "same lesions, by researchers who know its limits below."
    ),
    (
        "Not for diagnosis, triage, screening, reassurance, or any decision about a person; not "
        "for patients; not as a second opinion."
    ),
]


def write_model_card(run: EvaluatedRun, identity: RunIdentity, folder: Path) -> None:
    """Write both pages into a folder, which is there.

    Args:
        run: that the card describes.
        identity: which tracked run it is.
        folder: where to write.
    """
    content = build_card_content(run, identity)
    for name in PAGES:
        text = render_template("melanoma_lab.reports.model_card", name, content)
        replace_file(folder / name, text.encode())


def build_card_content(run: EvaluatedRun, identity: RunIdentity) -> dict[str, Any]:
    """Return what both pages say, as words and rows for their templates."""
    manifest, tags, evaluation = run.manifest, identity.tags, run.evaluation
    split, point = run.predictions.evaluated, evaluation.point
    before, after = (
        estimate_calibration(each) for each in (split, split.calibrate(evaluation.temperature))
    )
    return {
        "title": f"{tags.get('arm', 'a model')}, seed {tags.get('seed', '?')}",
        "version": __version__,
        "run_id": identity.run_id,
        "judged": label_split(split.name),
        "detail_rows": training_sections.build_model_rows(run, identity),
        "setting_rows": training_sections.build_training_rows(run, tags),
        "intended": INTENDED,
        "factors": data_sections.describe_factors(manifest),
        "data_rows": data_sections.build_dataset_rows(manifest, tags),
        "splits": [label_split(split) for split in data_sections.list_splits(manifest)],
        "count_rows": data_sections.build_class_count_rows(manifest, split.slugs),
        "source_rows": data_sections.build_source_rows(manifest),
        "protocol": data_sections.describe_split_protocol(run.config, tags),
        "audit": data_sections.describe_audit(run.audit, tags),
        "metric_rows": _metric_rows(split, run.positive_class),
        "class_rows": _class_rows(split),
        "calibration_rows": _calibration_rows(before, after),
        "temperature": _describe_temperature(evaluation.temperature),
        "ece": _format_estimate("ece", after["ece"]),
        "point": _describe_point(point),
        "point_rows": _point_rows(point),
        "subgroup_rows": _subgroup_rows(evaluation),
        "few_lesions": FEW_LESIONS,
        "few_positive": FEW_POSITIVE,
        "has_melanoma": point is not None,
        "limits": limitations.list_limitations(run, tags),
    }


def _metric_rows(split: SplitPredictions, positive_class: str | None) -> list[list[str]]:
    """Return each metric of the evaluated split with its interval."""
    return [
        [label_metric(name), _format_estimate(name, found)]
        for name, found in estimate_metrics(split, positive_class).items()
    ]


def _class_rows(split: SplitPredictions) -> list[list[str]]:
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


def _calibration_rows(
    before: Mapping[str, IntervalEstimate], after: Mapping[str, IntervalEstimate]
) -> list[list[str]]:
    return [
        [label_metric(name), *(_format_estimate(name, each[name]) for each in (before, after))]
        for name in before
    ]


def _describe_temperature(fitted: Temperature) -> str:
    if fitted.why_not:
        return f"No temperature was fitted: {fitted.why_not}."
    sure = "too sure of itself" if fitted.value > 1 else "not sure enough"
    return (
        f"Temperature {fitted.value:.2f}, fitted to {fitted.n:,} validation images: the network is "
        f"{sure}. It changes no decision and is not in the model itself."
    )


def _describe_point(point: OperatingPoint | None) -> str:
    if point is None:
        return "The dataset names no melanoma class, so that none was chosen."
    if np.isnan(point.threshold):
        return "The validation split has no melanoma, so that none could be chosen."
    return (
        f"{point.slug.replace('_', ' ').capitalize()} from a calibrated probability of "
        f"{point.threshold:.3g} on: the largest threshold that finds {100 * point.target:g} % of "
        "the melanomas of the validation split."
    )


def _point_rows(point: OperatingPoint | None) -> list[list[str]]:
    if point is None or np.isnan(point.threshold):
        return []
    return [
        [
            label_split(split) + (" (chosen on)" if split == "val" else ""),
            f"{found.positive_images:,} ({found.positive_lesions:,})",
            *(
                _format_share(each)
                for each in (found.sensitivity, found.specificity, found.ppv, found.npv)
            ),
        ]
        for split, found in point.rates.items()
    ]


def _subgroup_rows(evaluation: ClinicalEvaluation) -> list[list[str]]:
    """Return the subgroups as they were measured; those of a few lesions say so."""
    table = evaluation.subgroups
    rows = []
    for row in table.to_dict("records"):
        name = "all" if row["column"] == "all" else f"{row['column']}: {row['value']}"
        lesions = row["n_melanoma_lesions"]
        cells = [name, f"{row['n_images']:,} ({row['n_lesions']:,})"]
        if evaluation.point is not None:
            cells.append("" if lesions is None else str(lesions))
        cells += [_cell(row, "balanced_accuracy")]
        if evaluation.point is not None:
            cells += [_cell(row, "sensitivity"), _cell(row, "specificity")]
        rows.append([*cells, "few" if row["few"] else ""])
    return rows


def _cell(row: dict[Any, Any], name: str) -> str:
    return _format_share(IntervalEstimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def _format_estimate(metric: str, found: IntervalEstimate) -> str:
    """Return a metric with its interval: ``41.3 % [38.0, 44.6]`` or ``0.033 [0.010, 0.046]``."""
    value = format_metric(metric, found.value)
    if not math.isfinite(found.low):
        return value
    low, high = (format_metric(metric, end).removesuffix(" %") for end in (found.low, found.high))
    return f"{value} [{low}, {high}]"


def _format_share(found: IntervalEstimate) -> str:
    """Return a share in per cent with its interval; empty if there is nothing to share."""
    return "" if math.isnan(found.value) else _format_estimate("accuracy", found)
