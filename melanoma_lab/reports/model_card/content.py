"""What a model card says, as words and rows for its templates.

The sections are those of Mitchell et al., Model Cards for Model Reporting (FAT* 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from melanoma_lab.core.formatting import label_metric, label_split
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.metric_intervals import (
    estimate_calibration,
    estimate_metrics,
    estimate_sensitivity,
    estimate_specificity,
)
from melanoma_lab.evaluation.predictions import SplitPredictions
from melanoma_lab.reports.model_card import data_sections, limitations, training_sections
from melanoma_lab.reports.model_card.card_data import ModelCardData
from melanoma_lab.reports.model_card.formatting import format_estimate, format_share

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


def build_card_content(facts: ModelCardData) -> dict[str, Any]:
    """What both pages say."""
    split = facts.predictions.evaluated
    before, after = (
        estimate_calibration(each) for each in (split, split.calibrate(facts.judgement.temperature))
    )
    point = facts.judgement.point
    return {
        "title": f"{facts.tags.get('arm', 'a model')}, seed {facts.tags.get('seed', '?')}",
        "version": __version__,
        "run_id": facts.run_id,
        "judged": label_split(split.name),
        "detail_rows": training_sections.build_model_rows(facts),
        "setting_rows": training_sections.build_training_rows(facts),
        "intended": INTENDED,
        "factors": data_sections.describe_factors(facts),
        "data_rows": data_sections.build_dataset_rows(facts),
        "splits": [label_split(split) for split in data_sections.list_splits(facts)],
        "count_rows": data_sections.build_class_count_rows(facts),
        "source_rows": data_sections.build_source_rows(facts),
        "protocol": data_sections.describe_split_protocol(facts),
        "audit": data_sections.describe_audit(facts),
        "metric_rows": _metric_rows(split, facts.melanoma),
        "class_rows": _class_rows(split),
        "calibration_rows": _calibration_rows(before, after),
        "temperature": _temperature(facts),
        "ece": format_estimate("ece", after["ece"]),
        "point": _point(facts),
        "point_rows": [] if point is None else _point_rows(facts),
        "subgroup_rows": _subgroup_rows(facts),
        "has_melanoma": point is not None,
        "limits": limitations.list_limitations(facts),
    }


def _metric_rows(split: SplitPredictions, melanoma: str | None) -> list[list[str]]:
    """Return each metric of the evaluated split with its interval."""
    return [
        [label_metric(name), format_estimate(name, found)]
        for name, found in estimate_metrics(split, melanoma).items()
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
                format_share(estimate_sensitivity(split, slug)),
                format_share(estimate_specificity(split, slug)),
            ]
        )
    return rows


def _calibration_rows(
    before: Mapping[str, IntervalEstimate], after: Mapping[str, IntervalEstimate]
) -> list[list[str]]:
    return [
        [label_metric(name), *(format_estimate(name, each[name]) for each in (before, after))]
        for name in before
    ]


def _temperature(facts: ModelCardData) -> str:
    fitted = facts.judgement.temperature
    if fitted.why_not:
        return f"No temperature was fitted: {fitted.why_not}."
    sure = "too sure of itself" if fitted.value > 1 else "not sure enough"
    return (
        f"Temperature {fitted.value:.2f}, fitted to {fitted.n:,} validation images: the network is "
        f"{sure}. It changes no decision and is not in the model itself."
    )


def _point(facts: ModelCardData) -> str:
    point = facts.judgement.point
    if point is None:
        return "The dataset names no melanoma class, so that none was chosen."
    if np.isnan(point.threshold):
        return "The validation split has no melanoma, so that none could be chosen."
    return (
        f"{point.slug.replace('_', ' ').capitalize()} from a calibrated probability of "
        f"{point.threshold:.3g} on: the largest threshold that finds {100 * point.target:g} % of "
        "the melanomas of the validation split."
    )


def _point_rows(facts: ModelCardData) -> list[list[str]]:
    point = facts.judgement.point
    if point is None or np.isnan(point.threshold):
        return []
    return [
        [
            label_split(split) + (" (chosen on)" if split == "val" else ""),
            f"{found.positive_images:,} ({found.positive_lesions:,})",
            *(
                format_share(each)
                for each in (found.sensitivity, found.specificity, found.ppv, found.npv)
            ),
        ]
        for split, found in point.rates.items()
    ]


def _subgroup_rows(facts: ModelCardData) -> list[list[str]]:
    """Subgroups as they were measured; those of a few lesions say so."""
    table = facts.judgement.subgroups
    rows = []
    for row in table.to_dict("records"):
        name = "all" if row["column"] == "all" else f"{row['column']}: {row['value']}"
        lesions = row["n_melanoma_lesions"]
        cells = [name, f"{row['n_images']:,} ({row['n_lesions']:,})"]
        if facts.judgement.point is not None:
            cells.append("" if lesions is None else str(lesions))
        cells += [_cell(row, "balanced_accuracy")]
        if facts.judgement.point is not None:
            cells += [_cell(row, "sensitivity"), _cell(row, "specificity")]
        rows.append([*cells, "few" if row["few"] else ""])
    return rows


def _cell(row: dict[Any, Any], name: str) -> str:
    return format_share(IntervalEstimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))
