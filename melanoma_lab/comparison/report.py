"""The files of a comparison: ``comparison.json``, ``report.md``, ``report.html`` and figures.

The reports have the commands that repeat the study's runs and their comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from melanoma_lab.comparison import figures
from melanoma_lab.comparison.compare import (
    PRIMARY_METRIC,
    ArmSummary,
    Comparison,
    Difference,
    format_comparison_json,
)
from melanoma_lab.comparison.pairing import list_covered_repetitions
from melanoma_lab.comparison.statistics import MIN_SEEDS
from melanoma_lab.comparison.study import Study
from melanoma_lab.comparison.verdicts import (
    CourseProjectClaim,
    check_claims,
    format_verdict,
    format_verdict_answer,
)
from melanoma_lab.config.arm import CUSTOM_PRESET, split_arm_name
from melanoma_lab.config.compose import load_preset_reference
from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.config.schema.tracking import DEFAULT_TRACKING_URI, mask_password
from melanoma_lab.core.files import replace_file
from melanoma_lab.core.formatting import (
    describe_direction,
    format_count,
    format_difference_interval,
    format_metric,
    format_metric_interval,
    format_p_value,
    label_metric,
    label_split,
    name_positive_class_metrics,
)
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.core.version import UNKNOWN_COMMIT, __version__, shorten_commit
from melanoma_lab.reports.rendering import (
    ReportFigure,
    encode_png,
    render_template,
    write_report_figures,
)


def write_comparison_report(
    folder: Path, study: Study, comparison: Comparison, warnings: Sequence[str], *, again: str
) -> Path:
    """Write the report of a comparison into the study's folder; return the path of its page."""
    pictures = draw_comparison_figures(comparison)
    content = _build_content(study, comparison, warnings, again)
    write_report_figures(folder, pictures)
    replace_file(folder / "comparison.json", format_comparison_json(comparison, warnings))
    for name in ("report.md", "report.html"):
        text = render_template("melanoma_lab.comparison", name, content | {"pictures": pictures})
        replace_file(folder / name, text)
    return folder / "report.html"


def draw_comparison_figures(comparison: Comparison) -> list[ReportFigure]:
    """Draw all figures for which the comparison has data."""
    drawn = []

    def add(name: str, section: str, alt: str, figure: Figure) -> None:
        drawn.append(ReportFigure(name, section, alt, encode_png(figure)))

    for metric in figures.select_forest_metrics(comparison):
        alt = (
            f"Difference of every arm from its reference in {label_metric(metric)} with its 95 % "
            "interval"
        )
        forest = figures.draw_difference_forest(comparison, metric)
        add(f"difference_{metric.replace('/', '_')}", "verdicts", alt, forest)
    alt = "Sensitivity to every class in every arm with its 95 % interval"
    add("sensitivity", "classes", alt, figures.draw_arm_sensitivities(comparison))
    alt = "Generalisation gap of every arm with its 95 % interval, and of every run"
    add("generalisation_gap", "gap", alt, figures.draw_generalisation_gaps(comparison))
    runs = [run for arm in comparison.arms.values() for run in arm.runs]
    if any(curve for run in runs for curve in run.curves.values()):
        alt = "Accuracy by epoch, mean and range over the runs of every arm"
        add("learning_curves", "curves", alt, figures.draw_mean_learning_curves(comparison))
    for i, arm in enumerate(comparison.arms.values(), start=1):
        alt = f"Confusion matrix of {arm.short}, in per cent of each true class"
        matrix = figures.draw_mean_confusion_matrix(comparison, arm)
        add(f"confusion_{i}", "confusion", alt, matrix)
    return drawn


def _build_content(
    study: Study, comparison: Comparison, warnings: Sequence[str], again: str
) -> dict[str, Any]:
    """Build the variables of the templates of both reports."""
    arms = list(comparison.arms.values())
    metrics = list(arms[0].metrics)
    others = ("accuracy", "macro_auroc", *comparison.positive_class_sensitivity)
    candidates = dict.fromkeys((comparison.metric, *others, "generalisation_gap"))
    levels = [metric for metric in candidates if metric in metrics]
    return {
        "study": comparison.study,
        "version": __version__,
        "facts": _list_facts(study),
        "verdicts": [
            (entry.verdict, format_verdict(comparison, entry))
            for entry in comparison.of_metric(comparison.metric)
        ],
        "claim_rows": [_build_claim_row(claim, entry) for claim, entry in check_claims(comparison)],
        "metric": label_metric(comparison.metric),
        "warnings": list(warnings),
        "level_names": [label_metric(metric) for metric in levels],
        "level_rows": [
            *([arm.label, len(arm.runs), *_format_levels(arm, levels)] for arm in arms),
            _build_trivial_row(comparison, levels),
        ],
        "differences": [
            {
                "metric": label_metric(metric),
                "better": describe_direction(metric),
                "rows": _build_difference_rows(comparison, metric),
            }
            for metric in metrics
            if metric != f"sensitivity/{comparison.positive_class}"  # its own metric says it
        ]
        if comparison.differences
        else [],
        "classes": [slug.replace("_", " ") for slug in _positive_class_first(comparison)],
        "class_rows": [
            [
                arm.short,
                *_format_levels(
                    arm, [f"sensitivity/{s}" for s in _positive_class_first(comparison)]
                ),
            ]
            for arm in arms
        ],
        "cost_rows": [_build_cost_row(arm) for arm in arms],
        "full_names": [(arm.short, arm.name) for arm in arms if arm.short != arm.name],
        "min_seeds": MIN_SEEDS,
        "judged": label_split(study.judged),
        "ensembles": any(arm.is_ensemble for arm in arms),
        "folds": max(Counter(seed for seed, _ in list_covered_repetitions(study.runs)).values()),
        "again": again,
        "trained_by": describe_lab_versions(comparison),
        "training": build_training_commands(comparison, study.root),
    }


def _list_facts(study: Study) -> list[str]:
    """Summarise the study in short phrases."""
    run = study.runs[0]
    groups = len(run.estimates["accuracy"].groups)
    ungrouped = run.tags.get("protocol") == "ungrouped"
    kind = "groups of copies" if ungrouped else "lesions"
    images = int(run.confusion.sum())
    judged = label_split(study.judged)
    return [
        f"dataset {run.tags.get('dataset', 'unknown')}",
        f"{format_count(len(study.arms), 'arm')}, {len(study.runs)} finished runs",
        f"{images} {judged} images of {groups} {kind}, {len(run.slugs)} classes",
        f"protocol {run.tags.get('protocol', 'unknown')}",
    ]


def _build_claim_row(claim: CourseProjectClaim, entry: Difference) -> list[str]:
    difference = format_difference_interval(
        claim.metric, entry.summary.mean, entry.summary.ci_low, entry.summary.ci_high
    )
    return [
        claim.question,
        claim.course_project_says,
        f"{difference} in {label_metric(claim.metric)}",
        format_verdict_answer(entry.verdict),
    ]


def _format_levels(arm: ArmSummary, metrics: Sequence[str]) -> list[str]:
    return [
        format_metric_interval(metric, entry.mean, entry.ci_low, entry.ci_high)
        for metric in metrics
        for entry in [arm.metrics[metric]]
    ]


def _build_trivial_row(comparison: Comparison, metrics: Sequence[str]) -> list[object]:
    """Return the row of a classifier that always predicts the most common class."""
    counts = next(iter(comparison.arms.values())).runs[0].confusion.sum(axis=1)
    answer = comparison.slugs[int(counts.argmax())]
    present = max(int(np.count_nonzero(counts)), 1)
    scores = {
        "accuracy": counts.max() / max(counts.sum(), 1),
        "balanced_accuracy": 1 / present,
        "macro_auroc": 0.5,
        "generalisation_gap": 0.0,
    }
    positive = answer == comparison.positive_class
    of_class = name_positive_class_metrics(comparison.positive_class)
    scores |= dict(zip(of_class, (float(positive), float(not positive), 0.5), strict=False))
    cells = [format_metric(m, float(scores[m])) if m in scores else "" for m in metrics]
    return [f"always {answer.replace('_', ' ')}", "", *cells]


def _build_difference_rows(comparison: Comparison, metric: str) -> list[list[str]]:
    return [
        [
            f"{comparison.arms[entry.arm].short} vs {comparison.arms[entry.reference].short}",
            str(entry.n_pairs),
            format_difference_interval(
                metric, entry.summary.mean, entry.summary.ci_low, entry.summary.ci_high
            ),
            format_p_value(entry.p_holm),
            entry.verdict,
        ]
        for entry in comparison.of_metric(metric)
    ]


def _positive_class_first(comparison: Comparison) -> list[str]:
    rest = [slug for slug in comparison.slugs if slug != comparison.positive_class]
    return [comparison.positive_class, *rest] if comparison.positive_class else rest


def _build_cost_row(arm: ArmSummary) -> list[str]:
    """Return the costs of an arm as means over its runs; a cell is empty if no run recorded it."""

    def mean(name: str, form: str) -> str:
        values = [run.costs[name] for run in arm.runs if name in run.costs]
        return form.format(np.mean(values)) if values else ""

    return [
        arm.label if arm.is_ensemble else arm.short,
        mean("fit_seconds", "{:,.0f}"),
        mean("images_per_second", "{:,.0f}"),
        mean("optimizer_steps", "{:,.0f}"),
        mean("best_epoch", "{:.1f}"),
        mean("parameters", "{:,.0f}"),
    ]


def build_compare_command(study: str, *, reference: str | None, metric: str, uri: str) -> str:
    """Build the command that compares a study's tracked runs.

    Args:
        reference: the arm that all others are compared with; None if each names its own.
    """
    words = [f"study={study}"]
    words += [f"reference={format_override_value(reference)}"] if reference else []
    words += [f"metric={metric}"] if metric != PRIMARY_METRIC else []
    words += [f"tracking.uri={mask_password(uri)}"] if uri != DEFAULT_TRACKING_URI else []
    return format_portable_command("compare", *words)


def build_training_commands(comparison: Comparison, root: str | None) -> list[str]:
    """Build the commands that train the arms of a study and make its ensembles.

    Arms with the same overrides, seeds and folds share a command.

    Args:
        root: ``dataset.root`` of its runs; None if the dataset needs none.
    """
    shared = [f"study={comparison.study}"] if comparison.study != "ablation" else []
    shared += [f"dataset.root={root}"] if root else []
    together: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for arm in comparison.arms.values():
        if arm.is_ensemble:
            continue
        preset, overrides = split_arm_name(arm.name)
        overrides = (*overrides, *_list_reference_overrides(arm, preset))
        for seeds, folds in _list_grids(arm):
            together.setdefault((overrides, seeds, folds), []).append(preset)
    commands = []
    for (overrides, seeds, folds), presets in together.items():
        words = [f"+experiment={','.join(presets)}"] if presets != [CUSTOM_PRESET] else []
        words += [f"seed={_join_numbers(seeds)}"]
        words += [f"split.fold={_join_numbers(folds)}"] if folds != (0,) else []
        many = len(presets) * len(seeds) * len(folds) > 1
        multirun = ["-m"] if many else []
        commands.append(format_portable_command(*multirun, *words, *overrides, *shared))
    return commands + [
        format_portable_command("ensemble", *_list_ensemble_overrides(comparison, arm))
        for arm in comparison.arms.values()
        if arm.is_ensemble
    ]


def describe_lab_versions(comparison: Comparison) -> str:
    """Describe the versions and commits of melanoma_lab that trained the arms of a study."""
    runs = [run for arm in comparison.arms.values() if not arm.is_ensemble for run in arm.runs]
    versions = {run.tags.get("melanoma_lab", "") for run in runs} - {""}
    commits = {shorten_commit(run.tags.get("git_commit", UNKNOWN_COMMIT), 7) for run in runs} - {
        UNKNOWN_COMMIT
    }
    lab = f"melanoma_lab {' and '.join(sorted(versions))}".strip()
    return f"{lab} at commit {' and '.join(sorted(commits))}" if commits else lab


def _list_grids(arm: ArmSummary) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """List the grids of seeds and folds that make up an arm's runs.

    It is a single grid if the arm has all combinations, else a grid for each fold.
    """
    repetitions = list_covered_repetitions(arm.runs)
    if len(repetitions) == len(arm.seeds) * len(arm.folds):
        return [(arm.seeds, arm.folds)]
    return [
        (tuple(sorted(seed for seed, other in repetitions if other == fold)), (fold,))
        for fold in arm.folds
    ]


def _list_reference_overrides(arm: ArmSummary, preset: str) -> list[str]:
    """Return the override of ``reference`` if an arm's runs name another one than their preset."""
    named = arm.runs[0].tags.get("reference", "")
    if named == (load_preset_reference(preset) or ""):
        return []
    return [f"reference={format_override_value(named)}" if named else "reference=null"]


def _list_ensemble_overrides(comparison: Comparison, arm: ArmSummary) -> list[str]:
    """Return the overrides that make an arm of ensembles from the runs of another arm."""
    member_arm = arm.runs[0].tags.get("reference", "")
    members = len({seed for seed, _ in arm.runs[0].covers})
    return [
        f"study={comparison.study}",
        f"arm={format_override_value(comparison.short.get(member_arm, member_arm))}",
        f"members={members}",
    ]


def _join_numbers(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
