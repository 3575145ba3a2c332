"""Console output of the command ``audit``: problems, their effects and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from melanoma_lab.audit.findings import Findings
from melanoma_lab.audit.problems import Problem
from melanoma_lab.core.console import console


def show_findings(findings: Findings, problems: Sequence[Problem], folder: Path) -> None:
    """Print the summary of an audit.

    Args:
        findings: findings of the audit.
        problems: problems that follow from the findings.
        folder: folder of ``audit.json`` and ``audit.html``.
    """
    counts = findings.class_counts
    parts = ", ".join(f"{sum(classes.values())} {part}" for part, classes in counts.items())
    split = (
        f"published as {parts}" if findings.judged_split == "published" else "no published split"
    )
    n_classes = len({name for classes in counts.values() for name in classes})
    console.print(
        f"[bold]{findings.dataset}[/]: {findings.n_images} images, {n_classes} classes, {split}\n"
    )
    for number, problem in enumerate(problems, 1):
        console.print(f"[bold]{number}. {escape(problem.title)}[/]")
        console.print(f"   {problem.effect}", markup=False)
        example = _example(problem)
        if example:
            console.print(f"   For example {example}", markup=False, style="dim")
        for remedy in problem.remedies:
            line = f"[green]{escape(remedy.line)}[/]  " if remedy.line else ""
            console.print(f"   -> {line}{escape(remedy.effect)}")
        console.print()
    if not problems:
        console.print("[green]No problem was found.[/]\n")
    for sentence in findings.unknown:
        console.print(f"Unknown: {sentence}", style="dim", markup=False)
    console.print(
        f"page with images: [bold]{folder / 'audit.html'}[/]   all findings: "
        f"{folder / 'audit.json'}\n"
        "[dim]Research use only: not a medical device.[/]"
    )


def _example(problem: Problem) -> str:
    """Describe the first image or group of a problem in one line; empty if there is none."""
    if problem.notes:
        name, note = next(iter(problem.notes.items()))
        return f"{name}: {note}"
    return "  and  ".join(problem.groups[0]) if problem.groups else ""
