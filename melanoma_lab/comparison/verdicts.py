"""The verdicts of a comparison in words, and the course project's conclusions checked by them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from melanoma_lab.comparison.compare import Comparison, Difference, MetricSummary
from melanoma_lab.comparison.statistics import Verdict
from melanoma_lab.core.formatting import (
    format_count,
    format_difference,
    format_p_value,
    get_difference_unit,
    label_metric,
)


def format_verdict(comparison: Comparison, entry: Difference) -> str:
    """Phrase the verdict on an arm, with its difference, seeds and p value."""
    arm, reference = (comparison.arms[name].short for name in (entry.arm, entry.reference))
    name = label_metric(entry.metric)
    start = {
        "helps": f"{arm} helps, compared with {reference}",
        "hurts": f"{arm} hurts, compared with {reference}",
        "no evidence": f"No evidence that {arm} differs from {reference}",
        "too few runs": f"Too few runs to compare {arm} with {reference}",
    }[entry.verdict]
    seeds = format_count(entry.n_seeds, entry.unit)
    text = f"{start}: {_format_difference(entry)} in {name}, {seeds}"
    if math.isfinite(entry.p_holm):
        p = format_p_value(entry.p_holm)
        text += f", p {p if p.startswith('<') else f'= {p}'}"
    if entry.verdict == "no evidence" and entry.summary.mean != 0:
        return f"{text}. {describe_seeds_needed(entry)}"
    return f"{text}."  # with too few runs, a warning says how many are needed


def format_verdict_answer(verdict: Verdict) -> str:
    """Phrase a verdict as the answer to the question whether an arm is better."""
    return {"helps": "yes", "hurts": "no, worse"}.get(verdict, verdict)


def describe_seeds_needed(entry: Difference) -> str:
    """Return a sentence about the number of seeds that the observed difference would need."""
    if entry.n_seeds < 2 or not math.isfinite(entry.summary.ci_low):
        return (
            "How many are needed cannot be estimated from "
            f"{format_count(entry.n_seeds, entry.unit)}."
        )
    if entry.seeds_needed is None:
        return (
            "The observed difference is too small to show with these lesions, whatever the "
            f"number of {entry.unit}s."
        )
    return f"To show a difference of this size would take about {entry.seeds_needed} {entry.unit}s."


def _format_difference(entry: Difference) -> str:
    points = f" {get_difference_unit(entry.metric)}" if get_difference_unit(entry.metric) else ""
    text = f"{format_difference(entry.metric, entry.summary.mean)}{points}"
    if not math.isfinite(entry.summary.ci_low):
        return text
    low, high = (
        format_difference(entry.metric, end)
        for end in (entry.summary.ci_low, entry.summary.ci_high)
    )
    return f"{text} (95 % interval {low} to {high})"


@dataclass(frozen=True)
class CourseProjectClaim:
    """A conclusion of the course project, which measured on copies of training images.

    Attributes:
        course_project_says: the course project's answer, with its figures.
        arm: the preset that is claimed to be better.
        reference: the preset that is claimed to be worse.
    """

    question: str
    course_project_says: str
    arm: str
    reference: str
    metric: str


COURSE_PROJECT_CLAIMS: Final = (
    CourseProjectClaim(
        "Does dropout shrink the generalisation gap?",
        "yes (validation accuracy 53 % instead of 52 %)",
        "dropout",
        "baseline",
        "generalisation_gap",
    ),
    CourseProjectClaim(
        "Does Adam beat SGD?",
        "yes (one run each)",
        "dropout",
        "dropout_sgd",
        "balanced_accuracy",
    ),
    CourseProjectClaim(
        "Does balancing with Augmentor raise balanced accuracy?",
        "yes (validation accuracy 83 % instead of 53 %)",
        "augmented",
        "dropout",
        "balanced_accuracy",
    ),
)

_REVERSED: Final[dict[Verdict, Verdict]] = {"helps": "hurts", "hurts": "helps"}


def check_claims(comparison: Comparison) -> list[tuple[CourseProjectClaim, Difference]]:
    """Find the course project's claims that a study can answer.

    Returns:
        Each claim whose two presets the study compares (in arms without overrides that other arms
        lack), with the difference of the arm from its reference.
    """
    by_short = {arm.short: name for name, arm in comparison.arms.items()}
    checked = []
    for claim in COURSE_PROJECT_CLAIMS:
        arm, reference = by_short.get(claim.arm), by_short.get(claim.reference)
        for entry in comparison.of_metric(claim.metric):
            if (entry.arm, entry.reference) == (arm, reference):
                checked.append((claim, entry))
            elif (entry.arm, entry.reference) == (reference, arm):
                checked.append((claim, reverse_difference(entry)))
    return checked


def reverse_difference(entry: Difference) -> Difference:
    """Return the difference of the reference from the arm."""
    summary = entry.summary
    return replace(
        entry,
        arm=entry.reference,
        reference=entry.arm,
        summary=MetricSummary(-summary.mean, summary.sd, -summary.ci_high, -summary.ci_low),
        verdict=_REVERSED.get(entry.verdict, entry.verdict),
    )
