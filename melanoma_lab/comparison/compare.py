"""A study's runs as the means of its arms, the differences between them, and verdicts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melanoma_lab.comparison import statistics
from melanoma_lab.comparison.pairing import (
    aggregate_by_unit,
    assign_units,
    list_covered_repetitions,
    pair_runs,
)
from melanoma_lab.comparison.statistics import MeanOverSeeds, Verdict
from melanoma_lab.comparison.study import Study, StudyRun
from melanoma_lab.config.arm_labels import find_references, shorten_arm_names
from melanoma_lab.core.errors import UserError, suggest_choice

PRIMARY_METRIC = "balanced_accuracy"
"""The metric that gives an arm's verdict unless told otherwise."""


@dataclass(frozen=True)
class MetricSummary:
    """A metric of an arm, or a difference between two, over seeds; NaN where undefined.

    Attributes:
        mean: over seeds, the folds of a seed averaged.
        sd: between seeds.
        ci_low: lower end of the interval that covers chance in seeds and in test lesions.
        ci_high: its upper end.
    """

    mean: float
    sd: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class ArmSummary:
    """What an arm came to.

    Attributes:
        name: in full.
        short: without the overrides that all arms of the study share.
        reference: the arm that it is compared with, if any.
        runs: its runs.
        metrics: by metric.
    """

    name: str
    short: str
    reference: str | None
    runs: tuple[StudyRun, ...]
    metrics: Mapping[str, MetricSummary]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, in order; those of an ensemble's members."""
        return tuple(sorted({seed for seed, _ in list_covered_repetitions(self.runs)}))

    @property
    def folds(self) -> tuple[int, ...]:
        """Its folds, in order; those of an ensemble's members."""
        return tuple(sorted({fold for _, fold in list_covered_repetitions(self.runs)}))

    @property
    def members(self) -> int:
        """How many trained networks answer together in each of its runs; 1 unless ensembles."""
        return max(len(run.covers) for run in self.runs)

    @property
    def is_ensemble(self) -> bool:
        """Whether its runs are means of other runs."""
        return self.runs[0].is_ensemble

    @property
    def is_trivial(self) -> bool:
        """Whether it is a trivial arm, there for scale: no network, and no steps that it takes."""
        return _is_for_scale(self.runs)

    @property
    def label(self) -> str:
        """What it is called in a table of all arms."""
        notes = [f"{self.members} runs' cost"] if self.is_ensemble else []
        notes += ["trivial classifier"] if self.is_trivial else []
        return f"{self.short} ({', '.join(notes)})" if notes else self.short


@dataclass(frozen=True)
class Difference:
    """Arm minus reference in one metric.

    Attributes:
        arm: its full name.
        reference: that of what it is compared with.
        metric: on the test lesions, save the generalisation gap.
        n_pairs: pairs of runs of the same seed and fold; of an ensemble and its members' mean.
        n_seeds: that they have, where ensembles are compared: ensembles without a common seed.
        unit: what is counted there, ``seed`` or ``ensemble``.
        summary: of the difference.
        p: two-sided, of no difference.
        p_holm: adjusted for the number of arms compared in this metric.
        verdict: ``helps``, ``hurts``, ``no evidence`` or ``too few runs``.
        seeds_needed: for a difference of this size; None where no number would do or that cannot
            be said.
    """

    arm: str
    reference: str
    metric: str
    n_pairs: int
    n_seeds: int
    unit: str
    summary: MetricSummary
    p: float
    p_holm: float
    verdict: Verdict
    seeds_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """A study compared.

    Attributes:
        study: its name.
        metric: the one that gives the verdicts.
        arms: by full name; what is compared with comes before what is compared with it.
        differences: of every arm that has a reference, metric by metric.
        slugs: class slugs, in class order.
        melanoma: slug of the melanoma class, None where the dataset names none.
        short: what each arm is called for short, also one that has no finished run.
    """

    study: str
    metric: str
    arms: Mapping[str, ArmSummary]
    differences: tuple[Difference, ...]
    slugs: tuple[str, ...]
    melanoma: str | None
    short: Mapping[str, str]

    def of_metric(self, metric: str) -> list[Difference]:
        """The differences in one metric, one for each arm that has a reference."""
        return [entry for entry in self.differences if entry.metric == metric]


def compare_study(
    study: Study, reference: str | None = None, metric: str = PRIMARY_METRIC
) -> Comparison:
    """Summarise the arms of a study and compare each with its reference.

    Args:
        study: as loaded.
        reference: compare all arms with this one; None: each with the one that it names.
        metric: the one that gives the verdicts.

    Raises:
        UserError: the study has no such arm or metric.
    """
    runs: dict[str, list[StudyRun]] = defaultdict(list)
    for run in study.runs:
        runs[run.key.arm].append(run)
    names = list(study.runs[0].estimates)
    if metric not in names:
        raise UserError(
            f"metric={metric}: not among what is compared. {suggest_choice(metric, names)}"
        )
    named = {arm: of_arm[0].tags.get("reference", "") for arm, of_arm in runs.items()}
    references = find_references(named, reference)
    short = shorten_arm_names({*runs, *(key.arm for key in study.unfinished)})
    arms = {
        arm: ArmSummary(
            name=arm,
            short=short[arm],
            reference=references[arm],
            runs=tuple(runs[arm]),
            metrics={name: _summary(_over_units(runs[arm], name), *_range(name)) for name in names},
        )
        for arm in _in_order(references, [arm for arm in runs if _is_for_scale(runs[arm])])
    }
    differences = [
        entry for name in names for entry in _differences(arms, runs, name) if entry.n_pairs
    ]
    return Comparison(
        study=study.name,
        metric=metric,
        arms=arms,
        differences=tuple(differences),
        slugs=study.runs[0].slugs,
        melanoma=study.melanoma,
        short=short,
    )


def _is_for_scale(runs: Sequence[StudyRun]) -> bool:
    return runs[0].tags.get("trivial") == "true"


def _in_order(references: Mapping[str, str | None], for_scale: Sequence[str]) -> list[str]:
    """Arms for reading: a reference before what is compared with it, trivial arms last."""
    last = set(for_scale) - set(references.values())
    return sorted(_references_first(references), key=lambda arm: arm in last)


def _references_first(references: Mapping[str, str | None]) -> list[str]:
    """Arms in an order in which a reference stands before what is compared with it."""
    ordered: list[str] = []

    def put(arm: str, above: tuple[str, ...] = ()) -> None:
        reference = references[arm]
        if reference is not None and reference not in above:
            put(reference, (*above, arm))
        if arm not in ordered:
            ordered.append(arm)

    for arm in references:
        put(arm)
    return ordered


def _differences(
    arms: Mapping[str, ArmSummary], runs: Mapping[str, Sequence[StudyRun]], metric: str
) -> list[Difference]:
    """All arms that have a reference, compared with it in one metric."""
    results: list[tuple[ArmSummary, str, int, int, MeanOverSeeds]] = []
    for arm in arms.values():
        if arm.reference is not None:
            mine, theirs = pair_runs(runs[arm.name], runs[arm.reference])
            n_pairs = min(len(mine), len(theirs))
            n_seeds = len(set(assign_units([*mine, *theirs])))
            result = _over_units(mine, metric, theirs)
            results.append((arm, arm.reference, n_pairs, n_seeds, result))
    low, high = _range(metric)
    adjusted = statistics.holm([float(result.p) for *_, result in results])
    return [
        Difference(
            arm=arm.name,
            reference=reference,
            metric=metric,
            n_pairs=n_pairs,
            n_seeds=n_seeds,
            unit="ensemble" if arm.is_ensemble or arms[reference].is_ensemble else "seed",
            summary=_summary(result, low - high, high - low),
            p=float(result.p),
            p_holm=p_holm,
            verdict=statistics.decide_verdict(metric, float(result.mean), p_holm, n_seeds),
            seeds_needed=statistics.seeds_needed(
                float(result.mean), float(result.seed_variance), float(result.lesion_variance)
            ),
        )
        for (arm, reference, n_pairs, n_seeds, result), p_holm in zip(
            results, adjusted, strict=True
        )
    ]


def _over_units(
    runs: Sequence[StudyRun], metric: str, minus: Sequence[StudyRun] = ()
) -> MeanOverSeeds:
    """A metric's mean over seeds; of differences where there are runs to subtract."""
    if not runs:
        undefined = np.array(np.nan)
        return MeanOverSeeds(*[undefined] * 8)
    return statistics.mean_over_seeds(*aggregate_by_unit(runs, metric, minus))


def _range(metric: str) -> tuple[float, float]:
    """Least and greatest value that a metric can have."""
    greatest = {"log_loss": math.inf, "brier": 2.0}.get(metric, 1.0)
    return (-1.0 if metric == "generalisation_gap" else 0.0), greatest


def _summary(result: MeanOverSeeds, low: float, high: float) -> MetricSummary:
    """A result whose interval ends where what it is of ends; that takes nothing from its cover."""
    return MetricSummary(
        mean=float(result.mean),
        sd=float(result.sd),
        ci_low=float(np.clip(result.ci_low, low, high)),
        ci_high=float(np.clip(result.ci_high, low, high)),
    )


def format_comparison_json(comparison: Comparison, warnings: Sequence[str]) -> str:
    """The comparison as strict JSON: what is undefined is null.

    Args:
        comparison: of a study.
        warnings: what a reader must know first.
    """
    content = {
        "study": comparison.study,
        "arms": {
            name: {
                "n_runs": len(arm.runs),
                "seeds": arm.seeds,
                **({"members": arm.members} if arm.is_ensemble else {}),
                "metrics": {
                    metric: {
                        "mean": _number(entry.mean),
                        "sd": _number(entry.sd),
                        "ci_low": _number(entry.ci_low),
                        "ci_high": _number(entry.ci_high),
                    }
                    for metric, entry in arm.metrics.items()
                },
            }
            for name, arm in comparison.arms.items()
        },
        "comparisons": [_row(entry) for entry in comparison.differences],
        "warnings": list(warnings),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _row(entry: Difference) -> dict[str, Any]:
    return {
        "arm": entry.arm,
        "reference": entry.reference,
        "metric": entry.metric,
        "n_pairs": entry.n_pairs,
        "difference": _number(entry.summary.mean),
        "ci_low": _number(entry.summary.ci_low),
        "ci_high": _number(entry.summary.ci_high),
        "p": _number(entry.p),
        "p_holm": _number(entry.p_holm),
        "verdict": entry.verdict,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
