"""Print a comparison in the terminal: warnings, the table of arms, then the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from melanoma_lab.comparison import verdict_text
from melanoma_lab.comparison.compare import Comparison
from melanoma_lab.core.console import console
from melanoma_lab.core.formatting import format_metric, format_metric_interval, label_metric
from melanoma_lab.reports.rendering import break_arm_name

STYLES = {"helps": "green", "hurts": "red", "no evidence": "default", "too few runs": "yellow"}
#: Metrics shown besides the one that decides about the verdicts, if there is room.
BESIDE = ("melanoma_sensitivity", "generalisation_gap")
#: Characters that all columns but the names take; with fewer, ``BESIDE`` is left out.
OTHERS = 64


def show_comparison(comparison: Comparison, warnings: Sequence[str], report: Path) -> None:
    """Print a comparison.

    Args:
        comparison: the comparison of a study.
        warnings: sentences that warn the reader.
        report: the path of the full report.
    """
    console.print(f"\n[bold]Study {comparison.study}[/]")
    for warning in warnings:
        console.print(f"  {warning}", style="yellow", markup=False)
    arms = Table(show_edge=False, pad_edge=False, header_style="bold")
    names = [break_arm_name(arm.label) for arm in comparison.arms.values()]
    widest = max((len(line) for name in names for line in name.splitlines()), default=0)
    beside = BESIDE if console.width - widest >= OTHERS else ()
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
        sentence = verdict_text.format_verdict(comparison, entry)
        console.print(sentence, style=STYLES[entry.verdict], markup=False)
    console.print(f"\nreport: [bold]{report}[/]   [dim]Research use only: not a medical device.[/]")
