"""Compare the arms of a study from its tracked runs, print the result and write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from melanoma_lab.comparison.compare import Comparison, compare_study
from melanoma_lab.comparison.report import build_compare_command, write_comparison_report
from melanoma_lab.comparison.study import Study, load_study
from melanoma_lab.comparison.verdicts import format_verdict
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.console import console, show_note, show_progress
from melanoma_lab.core.formatting import (
    format_metric,
    format_metric_interval,
    label_metric,
)
from melanoma_lab.plots.style import CYCLE
from melanoma_lab.reports.rendering import break_arm_name
from melanoma_lab.tracking.client import connect_for_reading, summarize_error, translate_errors
from melanoma_lab.tracking.parent_runs import StudyMember, record_study


@dataclass(frozen=True)
class ComparedStudy:
    """The result of comparing the arms of a study.

    Attributes:
        warnings: sentences that warn the reader, the most serious first.
        report: the path of the report's page; ``report.md`` and ``comparison.json`` are in the same
            folder.
    """

    study: str
    metric: str
    warnings: tuple[str, ...]
    report: Path
    comparison: Comparison = field(repr=False)

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdicts, arm -> ``helps``, ``hurts``, ``no evidence`` or ``too few runs``."""
        return {entry.arm: entry.verdict for entry in self.comparison.of_metric(self.metric)}

    @property
    def table(self) -> pd.DataFrame:
        """The differences between arms and their references, a row each; NaN if undefined.

        Columns: arm, reference, metric, n_pairs, difference, ci_low, ci_high, p, p_holm, verdict.
        """
        columns = "arm reference metric n_pairs difference ci_low ci_high p p_holm verdict"
        rows = [entry.as_row() for entry in self.comparison.differences]
        return pd.DataFrame(rows, columns=columns.split())

    @property
    def arms(self) -> pd.DataFrame:
        """The metrics of all arms, a row for each arm and metric.

        Columns: arm, metric, n_runs, mean, sd, ci_low, ci_high; NaN if undefined.
        """
        rows: list[Mapping[str, object]] = [
            {"arm": arm.name, "metric": metric, "n_runs": len(arm.runs), **asdict(summary)}
            for arm in self.comparison.arms.values()
            for metric, summary in arm.metrics.items()
        ]
        return pd.DataFrame(rows)


STYLES = {"helps": "green", "hurts": "red", "no evidence": "default", "too few runs": "yellow"}
#: Characters that all columns but the names take; with fewer, two metrics are left out.
OTHERS = 64


def show_comparison(comparison: Comparison, warnings: Sequence[str], report: Path) -> None:
    """Print a comparison."""
    console.print(f"\n[bold]Study {comparison.study}[/]")
    for warning in warnings:
        console.print(f"  {warning}", style="yellow", markup=False)
    arms = Table(show_edge=False, pad_edge=False, header_style="bold")
    names = [break_arm_name(arm.label) for arm in comparison.arms.values()]
    widest = max((len(line) for name in names for line in name.splitlines()), default=0)
    beside: tuple[str, ...] = ()
    if console.width - widest >= OTHERS:
        beside = (*comparison.positive_class_sensitivity, "generalisation_gap")
    arms.add_column("arm", overflow="fold", min_width=widest if beside else None)
    arms.add_column("runs", justify="right")
    shown = [
        metric
        for metric in dict.fromkeys((comparison.metric, *beside))
        if any(metric in arm.metrics for arm in comparison.arms.values())
    ]
    for metric in shown:
        arms.add_column(label_metric(metric), no_wrap=metric == comparison.metric)
    for name, arm in zip(names, comparison.arms.values(), strict=True):
        first, *rest = shown
        level = arm.metrics[first]
        cells = [
            format_metric_interval(first, level.mean, level.ci_low, level.ci_high),
            *(format_metric(metric, arm.metrics[metric].mean) for metric in rest),
        ]
        arms.add_row(
            escape(name),
            str(len(arm.runs)),
            *map(escape, cells),
            style="dim" if arm.is_trivial else None,
        )
    console.print()
    console.print(arms)
    console.print()
    for entry in comparison.of_metric(comparison.metric):
        sentence = format_verdict(comparison, entry)
        console.print(sentence, style=STYLES[entry.verdict], markup=False)
    console.print(f"\nreport: [bold]{report}[/]   [dim]Research use only: not a medical device.[/]")


def report_study(
    study: str,
    *,
    reference: str | None,
    metric: str,
    tracked: Tracking,
    folder: Path,
) -> ComparedStudy:
    """Compare the arms of a study, print the result, write a report, and record it in MLflow.

    Args:
        reference: the arm that all others are compared with; None to compare each with the
            reference that it names.
        folder: the folder of all studies; ``<study>/comparison.json`` and the reports are written
            there.

    Raises:
        UserError: there is no such study, arm or metric, or its runs cannot be compared.
    """
    client = connect_for_reading(tracked)
    with translate_errors(tracked.uri), show_progress("reading runs") as report_progress:
        runs = load_study(client, study, report_progress)
    with show_progress("comparing"):
        comparison = compare_study(runs, reference, metric)
        warnings = find_warnings(runs, comparison)
    again = build_compare_command(study, reference=reference, metric=metric, uri=tracked.uri)
    with show_progress("drawing figures"):
        report = write_comparison_report(folder / study, runs, comparison, warnings, again=again)
    show_comparison(comparison, warnings, report)
    with show_progress("recording in MLflow"):
        _record(client, runs, comparison, warnings, folder / study)
    return ComparedStudy(study, metric, tuple(warnings), report, comparison)


def _record(
    client: Any, study: Study, comparison: Comparison, warnings: Sequence[str], folder: Path
) -> None:
    """Record the report in MLflow; if that fails, print a note and continue."""
    verdicts = [
        format_verdict(comparison, entry) for entry in comparison.of_metric(comparison.metric)
    ]
    note = "\n".join(f"- {sentence}" for sentence in [*verdicts, *warnings])
    colours = dict(zip(comparison.arms, cycle(CYCLE), strict=False))
    members = [
        StudyMember(
            run.run_id,
            run.tags,
            name=format_run_name(comparison.short[run.key.arm], run.key.seed, run.key.fold),
            colour=colours[run.key.arm],
        )
        for run in study.runs
    ]
    try:
        record_study(client, study.name, members, folder, note)
    except Exception as error:  # noqa: BLE001 - database drivers and HTTP clients raise any type
        show_note(
            f"The report was not recorded in MLflow ({summarize_error(error)}); it is in {folder}."
        )
