"""Warnings about a comparison: a sentence for each reason to doubt it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from melanoma_lab.audit.findings import CONFOUNDING_THRESHOLD
from melanoma_lab.comparison.compare import ArmSummary, Comparison
from melanoma_lab.comparison.pairing import list_covered_repetitions
from melanoma_lab.comparison.statistics import MIN_SEEDS
from melanoma_lab.comparison.study import Study
from melanoma_lab.comparison.verdicts import describe_seeds_needed
from melanoma_lab.core.formatting import (
    LOWER_IS_BETTER,
    format_count,
    format_list,
    format_metric,
    format_percent,
    label_metric,
)
from melanoma_lab.core.version import UNKNOWN_COMMIT, shorten_commit

#: Arms, seeds or classes that a warning names at most.
LISTED = 8


def find_warnings(study: Study, comparison: Comparison) -> list[str]:
    """Return a sentence for each reason to doubt a comparison, the most serious first."""
    return [
        *_warn_of_data(study),
        *_warn_of_chance_level(comparison),
        *_list_unfinished(study, comparison),
        *_describe_ensembles(comparison),
        *_list_without_reference(comparison),
        *_compare_with_trivial(comparison),
        *_warn_of_few_seeds(comparison),
        *_warn_of_folds_as_seeds(study),
        *_list_unpaired(comparison),
        *_compare_steps(comparison),
        *_compare_precisions(comparison),
        *_list_undefined(study, comparison),
        *_list_versions(study),
        *study.remarks,
        *_list_notes(study),
    ]


def _warn_of_data(study: Study) -> Iterator[str]:
    """Warn of leaks, missing groups, an unused test split and confounded sources."""
    protocols = [run.tags.get("protocol") for run in study.runs]
    if leaking := protocols.count("leaking"):
        yield (
            f"Leaking protocol in {_share(leaking, len(protocols), 'run')}: images that belong "
            "together are on both sides of the split, so all metrics are too optimistic."
        )
    if ungrouped := protocols.count("ungrouped"):
        yield (
            f"Ungrouped protocol in {_share(ungrouped, len(protocols), 'run')}: the dataset names "
            "no lesions or patients, so photographs of one lesion may be on both sides of the "
            "split; metrics may be too optimistic, and intervals too narrow."
        )
    if study.judged != "test":
        yield (
            "Evaluated on validation lesions, because these runs did not use the test split "
            "(evaluation.test=false): use this comparison to choose an arm. Epochs were chosen on "
            "the same lesions, so levels are optimistic; measure the chosen arm on test lesions."
        )
    accuracies = [run.tags.get("source_tells_class", "") for run in study.runs]
    highest = max((float(value) for value in accuracies if value), default=0.0)
    if highest >= CONFOUNDING_THRESHOLD:
        yield (
            "Source confounding: the source of a photograph alone distinguishes two classes in "
            f"{format_percent(highest, 0)} of cases (chance: 50 %), so an arm may look better "
            "because it distinguishes cameras, not diseases."
        )


def _warn_of_chance_level(comparison: Comparison) -> Iterator[str]:
    for arm in comparison.arms.values():
        at_chance = [run for run in arm.runs if run.tags.get("outcome") == "at_chance"]
        if at_chance and not arm.is_trivial:
            yield (
                f"{arm.short}: {_share(len(at_chance), len(arm.runs), 'run')} stayed at chance "
                f"(seed {format_list((run.key.seed for run in at_chance), LISTED)}); counted like "
                "other runs."
            )


def _list_unfinished(study: Study, comparison: Comparison) -> Iterator[str]:
    by_reason: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for key, reason in study.unfinished.items():
        by_reason.setdefault((key.arm, reason), []).append((key.seed, key.fold))
    for (arm, reason), pairs in by_reason.items():
        yield (
            f"{comparison.short[arm]}: {_format_repetitions(pairs)} not finished and missing here "
            f"({reason.rstrip('.')})."
        )


def _describe_ensembles(comparison: Comparison) -> Iterator[str]:
    for arm in comparison.arms.values():
        if arm.is_ensemble:
            yield (
                f"{arm.short} is an ensemble: each of its {format_count(len(arm.runs), 'run')} is "
                f"the mean prediction of {arm.members} networks and takes {arm.members} times as "
                "long to train and to apply; it is compared with the mean of single runs of the "
                "same seeds."
            )


def _list_without_reference(comparison: Comparison) -> Iterator[str]:
    arms = comparison.arms.values()
    if len(arms) == 1:
        yield "The study has one arm: there is nothing to compare it with."
        return
    compared_with = {arm.reference for arm in arms}
    for arm in arms:
        if arm.reference is None and arm.name not in compared_with and not arm.is_trivial:
            named = arm.runs[0].tags.get("reference", "")
            why = (
                f"its reference, {named}, has no finished run in this study"
                if named
                else "it names no reference"
            )
            yield f"{arm.short} is compared with nothing: {why}; set reference=ARM."


def _compare_with_trivial(comparison: Comparison) -> Iterator[str]:
    """Warn of networks whose mean is no better than that of a trivial classifier."""
    metric = comparison.metric
    better = -1 if metric in LOWER_IS_BETTER else 1
    arms = comparison.arms.values()
    trivial = {arm.short: arm.metrics[metric].mean for arm in arms if arm.is_trivial}
    for arm in arms:
        mean = arm.metrics[metric].mean
        as_good = [
            f"{name} ({format_metric(metric, other)})"
            for name, other in trivial.items()
            if better * (mean - other) <= 0
        ]
        if as_good and not arm.is_trivial:
            yield (
                f"{arm.short} ({format_metric(metric, mean)}) is on average no better in "
                f"{label_metric(metric)} than {format_list(as_good, LISTED)}, which does not use "
                "a lesion's shape."
            )


def _warn_of_few_seeds(comparison: Comparison) -> Iterator[str]:
    for entry in comparison.of_metric(comparison.metric):
        if entry.verdict == "too few runs":
            yield (
                f"{comparison.arms[entry.arm].short}: too few runs. It shares "
                f"{format_count(entry.n_seeds, entry.unit)} with "
                f"{comparison.arms[entry.reference].short}; a verdict takes {MIN_SEEDS} or more. "
                f"{describe_seeds_needed(entry)}"
            )


def _warn_of_folds_as_seeds(study: Study) -> Iterator[str]:
    """Warn if seeds have different folds, whose training images differ but mostly overlap."""
    folds: dict[int, set[int]] = {}
    for seed, fold in list_covered_repetitions(study.runs):
        folds.setdefault(seed, set()).add(fold)
    if any(one.isdisjoint(other) for one, other in combinations(folds.values(), 2)):
        yield (
            "Seeds have different folds, and count as repetitions although folds share most of "
            "their training images: intervals and p values may be too small. Give every seed all "
            "folds, or all seeds one split."
        )


def _pair_arms(comparison: Comparison) -> Iterator[tuple[ArmSummary, ArmSummary]]:
    """Yield each arm that has a reference, with its reference."""
    for arm in comparison.arms.values():
        if arm.reference is not None:
            yield arm, comparison.arms[arm.reference]


def _list_unpaired(comparison: Comparison) -> Iterator[str]:
    for arm, other in _pair_arms(comparison):
        mine, theirs = list_covered_repetitions(arm.runs), list_covered_repetitions(other.runs)
        if not mine & theirs:
            yield f"{arm.short} and {other.short} share no seed and fold: they are not compared."
        elif mine != theirs:
            missing = [
                f"{who.short} lacks {_format_repetitions(sorted(lacking))}"
                for who, lacking in ((arm, theirs - mine), (other, mine - theirs))
                if lacking
            ]
            yield f"{'; '.join(missing)}: only the runs that both have are compared."


def _compare_steps(comparison: Comparison) -> Iterator[str]:
    for arm, other in _pair_arms(comparison):
        if arm.is_trivial or other.is_trivial or arm.is_ensemble != other.is_ensemble:
            continue  # another warning says that ensembles cost more
        mine, theirs = _list_steps(arm), _list_steps(other)
        if mine and theirs and mine != theirs:
            yield (
                f"{arm.short} took {_span(mine)} optimizer steps, {other.short} {_span(theirs)}: "
                "the arm that trained longer has an advantage that its name does not mention."
            )


def _list_steps(arm: ArmSummary) -> set[int]:
    return {int(run.costs["optimizer_steps"]) for run in arm.runs if "optimizer_steps" in run.costs}


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _compare_precisions(comparison: Comparison) -> Iterator[str]:
    """Warn of arms with several precisions, and of pairs that differ in it unintentionally."""
    for arm in comparison.arms.values():
        mine = _group_by_precision(arm)
        if len(mine) > 1:
            which = "; ".join(
                f"{name} ({_format_repetitions(pairs)})" for name, pairs in mine.items()
            )
            yield (
                f"{arm.short} was computed in several precisions: {which}. Differences between "
                "machines look like random variation; choose one, as training.precision=float32."
            )
        if arm.reference is None:
            continue
        other = comparison.arms[arm.reference]
        theirs = _group_by_precision(other)
        same_name = _list_configured_precision(arm) == _list_configured_precision(other)
        if len(mine) == len(theirs) == 1 and set(mine) != set(theirs) and same_name:
            yield (
                f"{arm.short} was computed in {next(iter(mine))}, {other.short} in "
                f"{next(iter(theirs))}: a difference that the arms' names do not mention."
            )


def _list_configured_precision(arm: ArmSummary) -> list[str]:
    return [part for part in arm.name.split(",") if part.startswith("training.precision=")]


def _group_by_precision(arm: ArmSummary) -> dict[str, list[tuple[int, int]]]:
    """Group an arm's (seed, fold) by the precision of training; leave out runs without record."""
    found: dict[str, list[tuple[int, int]]] = {}
    for run in arm.runs:
        if precision := run.tags.get("precision"):
            found.setdefault(precision, []).append((run.key.seed, run.key.fold))
    return found


def _list_undefined(study: Study, comparison: Comparison) -> Iterator[str]:
    undefined = [
        metric
        for metric in study.runs[0].estimates
        if any(not math.isfinite(run.estimates[metric].value) for run in study.runs)
    ]
    if undefined:
        yield (
            "Undefined in some runs, and null in comparison.json: "
            f"{format_list(undefined, LISTED)}. Macro means are over the classes that the "
            f"{study.judged} split has."
        )
    tested = study.runs[0].confusion.sum(axis=1)
    absent = [slug for slug, n in zip(comparison.slugs, tested, strict=True) if not n]
    if absent:
        yield f"No {study.judged} image is of {format_list(absent, LISTED)}."
    lone = sorted(set().union(*(run.lone_classes for run in study.runs)))
    if lone:
        yield (
            f"One {study.judged} lesion only of {format_list(lone, LISTED)}: its sampling "
            "variation cannot be estimated, and intervals of macro means do not include it."
        )
    splits: dict[int, set[str]] = {}
    for run in study.runs:
        splits.setdefault(run.key.fold, set()).add(run.tags.get("split_hash", ""))
    if any(len(hashes) > 1 for hashes in splits.values()):
        yield (
            "The split differs from seed to seed: training images overlap between seeds, which "
            "the intervals ignore; they are somewhat too narrow. Keep split.seed fixed."
        )


def _list_versions(study: Study) -> Iterator[str]:
    commits = {run.tags.get("git_commit", UNKNOWN_COMMIT) for run in study.runs}
    if len(commits) > 1:
        short = sorted(shorten_commit(commit, 9) for commit in commits)
        yield f"Runs were made by different versions of the lab: {format_list(short, LISTED)}."


def _list_notes(study: Study) -> list[str]:
    notes = {run.tags.get("notes", "").strip() for run in study.runs} - {""}
    return [f"Notes on the data: {note}" for note in sorted(notes)]


def _format_repetitions(pairs: Sequence[tuple[int, int]]) -> str:
    """Format pairs of seed and fold; folds are named only if there are several."""
    if any(fold for _, fold in pairs):
        return format_list((f"seed {seed} fold {fold}" for seed, fold in pairs), LISTED)
    return f"seed{'s' * (len(pairs) > 1)} {format_list((seed for seed, _ in pairs), LISTED)}"


def _share(n: int, total: int, what: str) -> str:
    return (
        f"all {format_count(total, what)}" if n == total else f"{n} of {format_count(total, what)}"
    )
