"""Compute the means of a study's arms, the differences between them, and the verdicts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from melanoma_lab.config.arm import find_references, shorten_arm_names
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import name_positive_class_metrics

#: The default of the metric that decides about an arm's verdict.
PRIMARY_METRIC = "balanced_accuracy"


@dataclass(frozen=True)
class MetricSummary:
    """A metric of an arm, or the difference between two arms, over seeds; NaN if undefined.

    Attributes:
        mean: the mean over seeds, after averaging the folds of each seed.
        ci_low: the lower end of the interval, which covers chance in seeds and in test lesions.
        ci_high: the upper end of the interval.
    """

    mean: float
    sd: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class ArmSummary:
    """The results of an arm.

    Attributes:
        short: the name without the overrides that all arms of the study share.
        reference: the arm that it is compared with; None if there is none.
    """

    name: str
    short: str
    reference: str | None
    runs: tuple[StudyRun, ...]
    metrics: Mapping[str, MetricSummary]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, in order; for ensembles, the seeds of their members."""
        return tuple(sorted({seed for seed, _ in list_covered_repetitions(self.runs)}))

    @property
    def folds(self) -> tuple[int, ...]:
        """Its folds, in order; for ensembles, the folds of their members."""
        return tuple(sorted({fold for _, fold in list_covered_repetitions(self.runs)}))

    @property
    def members(self) -> int:
        """The number of networks in each of its runs; 1 if they are not ensembles."""
        return max(len(run.covers) for run in self.runs)

    @property
    def is_ensemble(self) -> bool:
        """Whether its runs are ensembles: means of other runs' predictions."""
        return self.runs[0].is_ensemble

    @property
    def is_trivial(self) -> bool:
        """Whether it is a trivial classifier, which has no network and takes no steps."""
        return _is_trivial(self.runs)

    @property
    def label(self) -> str:
        """Its name in a table of all arms, with notes."""
        notes = [f"ensemble of {self.members}"] if self.is_ensemble else []
        notes += ["trivial classifier"] if self.is_trivial else []
        return f"{self.short} ({', '.join(notes)})" if notes else self.short


@dataclass(frozen=True)
class Difference:
    """The difference in one metric, arm minus reference.

    Attributes:
        metric: the metric; it is measured on the test lesions, except the generalisation gap.
        n_pairs: the number of pairs of runs with the same seed and fold, or of an ensemble and the
            mean of its members.
        n_seeds: the number of independent units: seeds, or ensembles without a common seed.
        unit: the kind of these units, ``seed`` or ``ensemble``.
        summary: the mean difference with its uncertainty.
        p: the two-sided p value of the hypothesis that there is no difference.
        p_holm: the p value adjusted for the number of arms compared in this metric.
        verdict: ``helps``, ``hurts``, ``no evidence`` or ``too few runs``.
        seeds_needed: the number of seeds that would show a difference of this size; None if no
            number would, or if it cannot be computed.
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

    def as_row(self) -> dict[str, Any]:
        """Return the difference as a row of a table."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "metric": self.metric,
            "n_pairs": self.n_pairs,
            "difference": self.summary.mean,
            "ci_low": self.summary.ci_low,
            "ci_high": self.summary.ci_high,
            "p": self.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """The comparison of all arms of a study.

    Attributes:
        metric: the metric that decides about the verdicts.
        arms: full name -> arm; a reference comes before the arms that are compared with it.
        differences: the differences of all arms that have a reference, ordered by metric.
        positive_class: the slug of the positive class; None if the dataset names none.
        short: full name -> short name of every arm, including arms without a finished run.
    """

    study: str
    metric: str
    arms: Mapping[str, ArmSummary]
    differences: tuple[Difference, ...]
    slugs: tuple[str, ...]
    positive_class: str | None
    short: Mapping[str, str]

    @property
    def positive_class_sensitivity(self) -> tuple[str, ...]:
        """The name of the metric of the positive class's sensitivity; none without such a class."""
        return name_positive_class_metrics(self.positive_class)[:1]

    def of_metric(self, metric: str) -> list[Difference]:
        """Return the differences in one metric, one for each arm that has a reference."""
        return [entry for entry in self.differences if entry.metric == metric]


def compare_study(
    study: Study, reference: str | None = None, metric: str = PRIMARY_METRIC
) -> Comparison:
    """Summarise the arms of a study and compare each with its reference.

    Args:
        reference: the arm that all others are compared with; None to compare each with the
            reference that it names.

    Raises:
        UserError: the study has no such arm or metric.
    """
    runs: dict[str, list[StudyRun]] = defaultdict(list)
    for run in study.runs:
        runs[run.key.arm].append(run)
    names = list(study.runs[0].estimates)
    if metric not in names:
        raise UserError(f"metric={metric}: not a compared metric. {suggest_choice(metric, names)}")
    named = {arm: arm_runs[0].tags.get("reference", "") for arm, arm_runs in runs.items()}
    references = find_references(named, reference)
    short = shorten_arm_names({*runs, *(key.arm for key in study.unfinished)})
    # References before their arms, trivial classifiers last.
    last = {arm for arm in runs if _is_trivial(runs[arm])} - {*references.values()}
    ordered = sorted(_references_first(references), key=lambda arm: arm in last)
    arms = {
        arm: ArmSummary(
            name=arm,
            short=short[arm],
            reference=references[arm],
            runs=tuple(runs[arm]),
            metrics={
                name: _summarize(_average_units(runs[arm], name), *_get_metric_range(name))
                for name in names
            },
        )
        for arm in ordered
    }
    differences = [
        entry for name in names for entry in _compare_arms(arms, runs, name) if entry.n_pairs
    ]
    return Comparison(
        study=study.name,
        metric=metric,
        arms=arms,
        differences=tuple(differences),
        slugs=study.runs[0].slugs,
        positive_class=study.positive_class,
        short=short,
    )


def _is_trivial(runs: Sequence[StudyRun]) -> bool:
    return runs[0].tags.get("trivial") == "true"


def _references_first(references: Mapping[str, str | None]) -> list[str]:
    """Order arms so that each reference comes before the arms that are compared with it."""
    ordered: list[str] = []

    def add(arm: str, path: tuple[str, ...] = ()) -> None:
        reference = references[arm]
        if reference is not None and reference not in path:
            add(reference, (*path, arm))
        if arm not in ordered:
            ordered.append(arm)

    for arm in references:
        add(arm)
    return ordered


def _compare_arms(
    arms: Mapping[str, ArmSummary], runs: Mapping[str, Sequence[StudyRun]], metric: str
) -> list[Difference]:
    """Compare all arms that have a reference with it in one metric."""
    results: list[tuple[ArmSummary, str, int, int, MeanOverSeeds]] = []
    for arm in arms.values():
        if arm.reference is not None:
            mine, theirs = pair_runs(runs[arm.name], runs[arm.reference])
            n_pairs = min(len(mine), len(theirs))
            n_seeds = len(set(assign_units([*mine, *theirs])))
            result = _average_units(mine, metric, theirs)
            results.append((arm, arm.reference, n_pairs, n_seeds, result))
    low, high = _get_metric_range(metric)
    adjusted = statistics.holm([float(result.p) for *_, result in results])
    return [
        Difference(
            arm=arm.name,
            reference=reference,
            metric=metric,
            n_pairs=n_pairs,
            n_seeds=n_seeds,
            unit="ensemble" if arm.is_ensemble or arms[reference].is_ensemble else "seed",
            summary=_summarize(result, low - high, high - low),
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


def _average_units(
    runs: Sequence[StudyRun], metric: str, minus: Sequence[StudyRun] = ()
) -> MeanOverSeeds:
    """Average a metric over units (seeds), or its differences if there are runs to subtract."""
    if not runs:
        undefined = np.array(np.nan)
        return MeanOverSeeds(*[undefined] * 8)
    return statistics.mean_over_seeds(*aggregate_by_unit(runs, metric, minus))


def _get_metric_range(metric: str) -> tuple[float, float]:
    """Return the least and greatest value that a metric can have."""
    greatest = {"log_loss": math.inf, "brier": 2.0}.get(metric, 1.0)
    return (-1.0 if metric == "generalisation_gap" else 0.0), greatest


def _summarize(result: MeanOverSeeds, low: float, high: float) -> MetricSummary:
    """Summarise a result, and clip its interval to the possible values.

    Clipping does not reduce the coverage of the interval.
    """
    return MetricSummary(
        mean=float(result.mean),
        sd=float(result.sd),
        ci_low=float(np.clip(result.ci_low, low, high)),
        ci_high=float(np.clip(result.ci_high, low, high)),
    )


def format_comparison_json(comparison: Comparison, warnings: Sequence[str]) -> str:
    """Format a comparison as strict JSON; undefined numbers become null."""
    content = {
        "study": comparison.study,
        "arms": {
            name: {
                "n_runs": len(arm.runs),
                "seeds": arm.seeds,
                **({"members": arm.members} if arm.is_ensemble else {}),
                "metrics": {
                    metric: _replace_undefined(asdict(entry))
                    for metric, entry in arm.metrics.items()
                },
            }
            for name, arm in comparison.arms.items()
        },
        "comparisons": [_replace_undefined(entry.as_row()) for entry in comparison.differences],
        "warnings": list(warnings),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _replace_undefined(row: Mapping[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite by None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
