"""Which runs of two arms are held against each other, and what is independent of what.

Seeds are independent, so the folds of one are averaged before anything else, and so is all that
was trained with the same seeds. An ensemble over seeds 0, 1 and 2 is held against the mean of the
single runs of these seeds, as one unit; three ensembles of three seeds each are three units, no
more, and what is called the variance between seeds is then that between such units. Ensembles that
share a seed are one unit together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.comparison.study import StudyRun
from melanoma_lab.evaluation.influence import Estimate

Floats = NDArray[np.float64]


def pair_runs(
    arm: Sequence[StudyRun], other: Sequence[StudyRun]
) -> tuple[list[StudyRun], list[StudyRun]]:
    """The runs of two arms whose seeds and folds both have.

    An ensemble counts where the other arm has the seeds and folds of all its members.
    """
    mine, theirs = list(arm), list(other)
    while True:
        shared = list_covered_repetitions(mine) & list_covered_repetitions(theirs)
        kept = [[run for run in runs if run.covers <= shared] for runs in (mine, theirs)]
        if [len(runs) for runs in kept] == [len(mine), len(theirs)]:
            return mine, theirs
        mine, theirs = kept  # what was dropped may have been all that covered another's seeds


def list_covered_repetitions(runs: Sequence[StudyRun]) -> frozenset[tuple[int, int]]:
    """The seeds and folds that some runs were trained with, taken together."""
    return frozenset[tuple[int, int]]().union(*(run.covers for run in runs))


def assign_units(runs: Sequence[StudyRun]) -> list[int]:
    """Which unit each run belongs to; units are numbered from 0, by their first seed.

    Runs that share a seed are of one unit, and so are those that share one with the same third.
    """
    units: list[set[int]] = []
    seeds_of = [{seed for seed, _ in run.covers} for run in runs]
    for seeds in seeds_of:
        touched = [unit for unit in units if unit & seeds]
        units = [unit for unit in units if not unit & seeds]
        units.append(seeds.union(*touched))
    units.sort(key=min)
    return [next(i for i, unit in enumerate(units) if unit & seeds) for seeds in seeds_of]


def aggregate_by_unit(
    runs: Sequence[StudyRun], metric: str, minus: Sequence[StudyRun] = ()
) -> tuple[Floats, Floats]:
    """A metric of every unit; the difference where there are runs to subtract.

    Args:
        runs: one or more of an arm.
        metric: its name.
        minus: runs of another arm, as ``pair_runs`` gives them; a unit's runs are averaged arm by
            arm.

    Returns:
        Values, shape (S,), and the influences of G groups on them, shape (S, G).
    """
    everything = [*runs, *minus]
    units = assign_units(everything)
    in_unit = np.zeros((max(units) + 1, 2))
    for i, unit in enumerate(units):
        in_unit[unit, int(i >= len(runs))] += 1
    names = _all_groups([run.estimates[metric] for run in everything])
    values = np.zeros(len(in_unit))
    influences = np.zeros((len(in_unit), len(names)))
    for i, (run, unit) in enumerate(zip(everything, units, strict=True)):
        subtracted = int(i >= len(runs))
        weight = (-1 if subtracted else 1) / in_unit[unit, subtracted]
        estimate = run.estimates[metric]
        values[unit] += weight * estimate.value
        influences[unit, np.searchsorted(names, estimate.groups)] += weight * estimate.influence
    return values, influences


def _all_groups(estimates: Sequence[Estimate]) -> NDArray[np.str_]:
    """Names of all groups, sorted; runs of one split share the array of theirs."""
    different = {id(estimate.groups): estimate.groups for estimate in estimates}
    return np.unique(np.concatenate(list(different.values())))
