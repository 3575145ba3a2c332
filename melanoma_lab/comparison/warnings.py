"""Warnings about a comparison: a sentence for each reason to doubt it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from melanoma_lab.audit.findings import CONFOUNDING_THRESHOLD
from melanoma_lab.comparison.compare import ArmSummary, Comparison
from melanoma_lab.comparison.pairing import list_covered_repetitions
from melanoma_lab.comparison.statistics import MIN_SEEDS
from melanoma_lab.comparison.study import Study
from melanoma_lab.comparison.verdict_text import describe_seeds_needed
from melanoma_lab.core.formatting import (
    format_count,
    format_list,
    format_metric,
    format_percent,
    label_metric,
)
from melanoma_lab.core.metric_names import LOWER_IS_BETTER
from melanoma_lab.tracking.provenance import UNKNOWN_COMMIT, shorten_commit

#: Arms, seeds or classes that a warning names at most.
LISTED = 8


def find_warnings(study: Study, comparison: Comparison) -> list[str]:
    """Find all reasons to doubt a comparison.

    Args:
        study: the runs of the study.
        comparison: their comparison.

    Returns:
        A sentence for each reason, the most serious first.
    """
    arms = list(comparison.arms.values())
    return [
        *_warn_of_leaks(study),
        *_warn_of_missing_groups(study),
        *_warn_of_unused_test(study),
        *_warn_of_confounding(study),
        *_warn_of_chance_level(arms),
        *_list_unfinished(study, comparison),
        *_describe_ensembles(comparison),
        *_list_without_reference(arms),
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


def _warn_of_leaks(study: Study) -> list[str]:
    leaking = [run for run in study.runs if run.tags.get("protocol") == "leaking"]
    if not leaking:
        return []
    which = _share(len(leaking), len(study.runs), "run")
    text = "images that belong together are on both sides of the split, so all metrics are"
    return [f"Leaking protocol in {which}: {text} too optimistic."]


def _warn_of_missing_groups(study: Study) -> list[str]:
    ungrouped = [run for run in study.runs if run.tags.get("protocol") == "ungrouped"]
    if not ungrouped:
        return []
    which = _share(len(ungrouped), len(study.runs), "run")
    sides = "photographs of one lesion may be on both sides of the split"
    why = f"the dataset names no lesions or patients, so {sides}"
    effect = "metrics may be too optimistic, and intervals too narrow"
    return [f"Ungrouped protocol in {which}: {why}; {effect}."]


def _warn_of_unused_test(study: Study) -> list[str]:
    if study.judged == "test":
        return []
    how = (
        "Evaluated on validation lesions, because these runs did not use the test split "
        "(evaluation.test=false): use this comparison to choose an arm. Epochs were chosen on "
        "the same lesions, so levels are optimistic; measure the chosen arm on test lesions."
    )
    return [how]


def _warn_of_confounding(study: Study) -> list[str]:
    accuracies = [run.tags.get("source_tells_class", "") for run in study.runs]
    highest = max((float(value) for value in accuracies if value), default=0.0)
    if highest < CONFOUNDING_THRESHOLD:
        return []
    share = format_percent(highest, 0)
    text = f"the source of a photograph alone distinguishes two classes in {share}"
    why = "an arm may look better because it distinguishes cameras, not diseases"
    return [f"Source confounding: {text} of cases (chance: 50 %), so {why}."]


def _warn_of_chance_level(arms: Sequence[ArmSummary]) -> list[str]:
    return [
        f"{arm.short}: {_share(len(at_chance), len(arm.runs), 'run')} stayed at chance (seed "
        f"{format_list((run.key.seed for run in at_chance), LISTED)}); counted like other runs."
        for arm in arms
        if not arm.is_trivial
        and (at_chance := [run for run in arm.runs if run.tags.get("outcome") == "at_chance"])
    ]


def _list_unfinished(study: Study, comparison: Comparison) -> list[str]:
    by_reason: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for key, reason in study.unfinished.items():
        by_reason.setdefault((key.arm, reason), []).append((key.seed, key.fold))
    return [
        f"{comparison.short[arm]}: {_format_repetitions(pairs)} not finished and missing here "
        f"({reason.rstrip('.')})."
        for (arm, reason), pairs in by_reason.items()
    ]


def _describe_ensembles(comparison: Comparison) -> list[str]:
    return [
        f"{arm.short} is an ensemble: each of its {format_count(len(arm.runs), 'run')} is the "
        f"mean prediction of {arm.members} networks and takes {arm.members} times as long to "
        "train and to apply; it is compared with the mean of single runs of the same seeds."
        for arm in comparison.arms.values()
        if arm.is_ensemble
    ]


def _list_without_reference(arms: Sequence[ArmSummary]) -> list[str]:
    if len(arms) == 1:
        return ["The study has one arm: there is nothing to compare it with."]
    compared_with = {arm.reference for arm in arms}
    found = []
    for arm in arms:
        named = arm.runs[0].tags.get("reference", "")
        if arm.reference is None and arm.name not in compared_with and not arm.is_trivial:
            why = (
                f"its reference, {named}, has no finished run in this study"
                if named
                else "it names no reference"
            )
            found.append(f"{arm.short} is compared with nothing: {why}; set reference=ARM.")
    return found


def _compare_with_trivial(comparison: Comparison) -> list[str]:
    """Warn of networks whose mean is no better than that of a trivial classifier."""
    metric = comparison.metric
    better = -1 if metric in LOWER_IS_BETTER else 1
    trivial = [arm for arm in comparison.arms.values() if arm.is_trivial]
    found = []
    for arm in comparison.arms.values():
        mean = arm.metrics[metric].mean
        as_good = (
            []
            if arm.is_trivial
            else [
                f"{other.short} ({format_metric(metric, other.metrics[metric].mean)})"
                for other in trivial
                if better * (mean - other.metrics[metric].mean) <= 0
            ]
        )
        if as_good:
            found.append(
                f"{arm.short} ({format_metric(metric, mean)}) is on average no better in "
                f"{label_metric(metric)} than {format_list(as_good, LISTED)}, which does not use "
                "a lesion's shape."
            )
    return found


def _warn_of_few_seeds(comparison: Comparison) -> list[str]:
    found = []
    for entry in comparison.of_metric(comparison.metric):
        if entry.verdict == "too few runs":
            arm = comparison.arms[entry.arm]
            found.append(
                f"{arm.short}: too few runs. It shares {format_count(entry.n_seeds, entry.unit)} "
                f"with {comparison.arms[entry.reference].short}; a verdict takes {MIN_SEEDS} or "
                f"more. {describe_seeds_needed(entry)}"
            )
    return found


def _warn_of_folds_as_seeds(study: Study) -> list[str]:
    """Warn if seeds have different folds, whose training images differ but mostly overlap."""
    folds: dict[int, set[int]] = {}
    for seed, fold in list_covered_repetitions(study.runs):
        folds.setdefault(seed, set()).add(fold)
    if not any(one.isdisjoint(other) for one, other in combinations(folds.values(), 2)):
        return []
    text = (
        "Seeds have different folds, and count as repetitions although folds share most of their "
        "training images: intervals and p values may be too small. Give every seed all folds, or "
        "all seeds one split."
    )
    return [text]


def _list_unpaired(comparison: Comparison) -> list[str]:
    found = []
    for arm in comparison.arms.values():
        if arm.reference is None:
            continue
        other = comparison.arms[arm.reference]
        mine, theirs = list_covered_repetitions(arm.runs), list_covered_repetitions(other.runs)
        if not mine & theirs:
            found.append(
                f"{arm.short} and {other.short} share no seed and fold: they are not compared."
            )
        elif mine != theirs:
            missing = [
                f"{who.short} lacks {_format_repetitions(sorted(lacking))}"
                for who, lacking in ((arm, theirs - mine), (other, mine - theirs))
                if lacking
            ]
            found.append(f"{'; '.join(missing)}: only the runs that both have are compared.")
    return found


def _compare_steps(comparison: Comparison) -> list[str]:
    found = []
    for arm in comparison.arms.values():
        if arm.reference is None:
            continue
        other = comparison.arms[arm.reference]
        if arm.is_trivial or other.is_trivial or arm.is_ensemble != other.is_ensemble:
            continue  # another warning says that ensembles cost more
        mine, theirs = _list_steps(arm), _list_steps(other)
        if mine and theirs and mine != theirs:
            found.append(
                f"{arm.short} took {_span(mine)} optimizer steps, {other.short} {_span(theirs)}: "
                "the arm that trained longer has an advantage that its name does not mention."
            )
    return found


def _list_steps(arm: ArmSummary) -> set[int]:
    return {int(run.costs["optimizer_steps"]) for run in arm.runs if "optimizer_steps" in run.costs}


def _compare_precisions(comparison: Comparison) -> list[str]:
    """Warn of arms with several precisions, and of pairs that differ in it unintentionally."""
    found = []
    for arm in comparison.arms.values():
        mine = _group_by_precision(arm)
        if len(mine) > 1:
            which = "; ".join(
                f"{name} ({_format_repetitions(pairs)})" for name, pairs in mine.items()
            )
            found.append(
                f"{arm.short} was computed in several precisions: {which}. Differences between "
                "machines look like random variation; choose one, as training.precision=float32."
            )
        if arm.reference is None:
            continue
        other = comparison.arms[arm.reference]
        theirs = _group_by_precision(other)
        same_name = _list_configured_precision(arm) == _list_configured_precision(other)
        if len(mine) == len(theirs) == 1 and set(mine) != set(theirs) and same_name:
            found.append(
                f"{arm.short} was computed in {next(iter(mine))}, {other.short} in "
                f"{next(iter(theirs))}: a difference that the arms' names do not mention."
            )
    return found


def _list_configured_precision(arm: ArmSummary) -> list[str]:
    return [part for part in arm.name.split(",") if part.startswith("training.precision=")]


def _group_by_precision(arm: ArmSummary) -> dict[str, list[tuple[int, int]]]:
    """Group an arm's (seed, fold) by the precision of training; leave out runs without record."""
    found: dict[str, list[tuple[int, int]]] = {}
    for run in arm.runs:
        if precision := run.tags.get("precision"):
            found.setdefault(precision, []).append((run.key.seed, run.key.fold))
    return found


def _list_undefined(study: Study, comparison: Comparison) -> list[str]:
    undefined = [
        metric
        for metric in study.runs[0].estimates
        if any(not math.isfinite(run.estimates[metric].value) for run in study.runs)
    ]
    found = []
    if undefined:
        found.append(
            "Undefined in some runs, and null in comparison.json: "
            f"{format_list(undefined, LISTED)}. Macro means are over the classes that the "
            f"{study.judged} split has."
        )
    tested = study.runs[0].confusion.sum(axis=1)
    absent = [slug for slug, n in zip(comparison.slugs, tested, strict=True) if not n]
    if absent:
        found.append(f"No {study.judged} image is of {format_list(absent, LISTED)}.")
    lone = sorted(set().union(*(run.lone_classes for run in study.runs)))
    if lone:
        found.append(
            f"One {study.judged} lesion only of {format_list(lone, LISTED)}: its sampling "
            "variation cannot be estimated, and intervals of macro means do not include it."
        )
    per_seed = {run.key.fold: set[str]() for run in study.runs}
    for run in study.runs:
        per_seed[run.key.fold].add(run.tags.get("split_hash", ""))
    if any(len(hashes) > 1 for hashes in per_seed.values()):
        found.append(
            "The split differs from seed to seed: training images overlap between seeds, which "
            "the intervals ignore; they are somewhat too narrow. Keep split.seed fixed."
        )
    return found


def _list_versions(study: Study) -> list[str]:
    commits = {run.tags.get("git_commit", UNKNOWN_COMMIT) for run in study.runs}
    if len(commits) == 1:
        return []
    return [
        "Runs were made by different versions of the lab: "
        + format_list(sorted(shorten_commit(commit, 9) for commit in commits), LISTED)
        + "."
    ]


def _list_notes(study: Study) -> list[str]:
    notes = {run.tags.get("notes", "").strip() for run in study.runs} - {""}
    return [f"Notes on the data: {note}" for note in sorted(notes)]


def _span(values: Iterable[int]) -> str:
    low, high = int(np.min(list(values))), int(np.max(list(values)))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _format_repetitions(pairs: Sequence[tuple[int, int]]) -> str:
    """Format pairs of seed and fold; folds are named only if there are several."""
    if any(fold for _, fold in pairs):
        return format_list((f"seed {seed} fold {fold}" for seed, fold in pairs), LISTED)
    return f"seed{'s' * (len(pairs) > 1)} {format_list((seed for seed, _ in pairs), LISTED)}"


def _share(n: int, total: int, what: str) -> str:
    return (
        f"all {format_count(total, what)}" if n == total else f"{n} of {format_count(total, what)}"
    )
