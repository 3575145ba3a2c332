"""Check the conclusions of the course project against the runs of a study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from melanoma_lab.comparison.compare import Comparison, Difference, MetricSummary
from melanoma_lab.comparison.statistics import Verdict


@dataclass(frozen=True)
class CourseProjectClaim:
    """A conclusion of the course project, which measured on copies of training images.

    Attributes:
        question: the conclusion as a question.
        course_project_says: the course project's answer, with its figures.
        arm: the preset that is claimed to be better.
        reference: the preset that is claimed to be worse.
        metric: the metric of the claim.
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

    Args:
        comparison: the comparison of a study.

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
