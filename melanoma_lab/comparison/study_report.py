"""Compare the arms of a study from its tracked runs, and report the result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from melanoma_lab.comparison import rerun_commands, verdict_text
from melanoma_lab.comparison.compare import Comparison, compare_study
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.result import ComparedStudy
from melanoma_lab.comparison.study import Study, load_study
from melanoma_lab.comparison.terminal import show_comparison
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.console import console, show_progress
from melanoma_lab.plots.style import CYCLE
from melanoma_lab.tracking.client import connect_for_reading, summarize_error, translate_errors
from melanoma_lab.tracking.parent_runs import StudyMember, record_study


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
        study: the name of the study.
        reference: the arm that all others are compared with; None to compare each with the
            reference that it names.
        metric: the metric that decides about the verdicts.
        tracked: the settings of the tracking server.
        folder: the folder of all studies; ``<study>/comparison.json`` and the reports are written
            there.

    Returns:
        The comparison and the path of its report.

    Raises:
        UserError: there is no such study, arm or metric, or its runs cannot be compared.
    """
    client = connect_for_reading(tracked)
    with translate_errors(tracked.uri), show_progress("reading runs") as report_progress:
        runs = load_study(client, study, report_progress)
    with show_progress("comparing"):
        comparison = compare_study(runs, reference, metric)
        warnings = find_warnings(runs, comparison)
    again = rerun_commands.build_compare_command(
        study, reference=reference, metric=metric, uri=tracked.uri
    )
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
        verdict_text.format_verdict(comparison, entry)
        for entry in comparison.of_metric(comparison.metric)
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
        message = (
            f"The report was not recorded in MLflow ({summarize_error(error)}); it is in {folder}."
        )
        console.print(message, style="yellow", markup=False)
