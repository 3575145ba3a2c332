"""Pair the runs of two arms by seed and fold, and group dependent runs into units.

Only seeds are independent. Therefore the folds of a seed are averaged first, and so are all runs
that share seeds. An ensemble over seeds 0, 1 and 2 is compared with the mean of the single runs of
these seeds, as one unit; three ensembles of three seeds each are three units, and the variance
"between seeds" is then the variance between these units. Ensembles that share a seed form one unit.
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
    """Select the runs of two arms whose seeds and folds occur in both.

    An ensemble is selected if the other arm has the seeds and folds of all its members.
    """
    mine, theirs = list(arm), list(other)
    while True:
        shared = list_covered_repetitions(mine) & list_covered_repetitions(theirs)
        paired = [[run for run in runs if run.covers <= shared] for runs in (mine, theirs)]
        if [len(runs) for runs in paired] == [len(mine), len(theirs)]:
            return mine, theirs
        # Repeat: a dropped run may have been the only one with the seeds of a remaining run.
        mine, theirs = paired


def list_covered_repetitions(runs: Sequence[StudyRun]) -> frozenset[tuple[int, int]]:
    """Return all (seed, fold) with which the runs, or the members of ensembles, were trained."""
    return frozenset[tuple[int, int]]().union(*(run.covers for run in runs))


def assign_units(runs: Sequence[StudyRun]) -> list[int]:
    """Assign each run to a unit; units are numbered from 0 in the order of their lowest seeds.

    Runs that share a seed are in the same unit; this relation is transitive.
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
    """Average a metric in each unit, or compute the difference if there are runs to subtract.

    Args:
        minus: runs of another arm from ``pair_runs``; the runs of a unit are averaged separately
            for each arm.

    Returns:
        Values of the S units, shape (S,), and the influences of G groups on them, shape (S, G);
        float64.
    """
    everything = [*runs, *minus]
    units = assign_units(everything)
    in_unit = np.zeros((max(units) + 1, 2))
    for i, unit in enumerate(units):
        in_unit[unit, int(i >= len(runs))] += 1
    names = _list_groups([run.estimates[metric] for run in everything])
    values = np.zeros(len(in_unit))
    influences = np.zeros((len(in_unit), len(names)))
    for i, (run, unit) in enumerate(zip(everything, units, strict=True)):
        subtracted = int(i >= len(runs))
        weight = (-1 if subtracted else 1) / in_unit[unit, subtracted]
        estimate = run.estimates[metric]
        values[unit] += weight * estimate.value
        influences[unit, np.searchsorted(names, estimate.groups)] += weight * estimate.influence
    return values, influences


def _list_groups(estimates: Sequence[Estimate]) -> NDArray[np.str_]:
    """Return the sorted names of all groups."""
    # Runs with the same split share one array of names, so that few arrays are concatenated.
    distinct = {id(estimate.groups): estimate.groups for estimate in estimates}
    return np.unique(np.concatenate(list(distinct.values())))
