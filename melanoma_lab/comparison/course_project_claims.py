"""What the course project concluded, asked again: each claim against its own reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from melanoma_lab.comparison.compare import Comparison, Difference, MetricSummary
from melanoma_lab.comparison.statistics import Verdict


@dataclass(frozen=True)
class CourseProjectClaim:
    """One conclusion of the course project, which measured on copies of training images.

    Attributes:
        question: what it comes to.
        seed_says: its answer, with the figures that it rested on.
        arm: the preset that is claimed to be better.
        reference: the preset that it is claimed to be better than.
        metric: in which.
    """

    question: str
    seed_says: str
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
    """The course project's claims that a study can answer, with what it says of them.

    Args:
        comparison: of a study.

    Returns:
        For each claim whose two presets the study compares, and whose arms have no override that
        the other arms lack: the difference of the arm from its reference.
    """
    by_short = {arm.short: name for name, arm in comparison.arms.items()}
    judged = []
    for claim in COURSE_PROJECT_CLAIMS:
        arm, reference = by_short.get(claim.arm), by_short.get(claim.reference)
        for entry in comparison.of_metric(claim.metric):
            if (entry.arm, entry.reference) == (arm, reference):
                judged.append((claim, entry))
            elif (entry.arm, entry.reference) == (reference, arm):
                judged.append((claim, reverse_difference(entry)))
    return judged


def reverse_difference(entry: Difference) -> Difference:
    """The same difference, seen from the reference."""
    seen = entry.summary
    return replace(
        entry,
        arm=entry.reference,
        reference=entry.arm,
        summary=MetricSummary(-seen.mean, seen.sd, -seen.ci_high, -seen.ci_low),
        verdict=_REVERSED.get(entry.verdict, entry.verdict),
    )
