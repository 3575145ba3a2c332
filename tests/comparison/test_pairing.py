"""Ensembles against the runs they are made of: what is averaged, what counts as one, how often
chance is called an effect.
"""

import numpy as np
import pytest
from comparison.test_statistics import LARGE, LESIONS, SMALL
from scipy import stats
from scipy.stats import norm

from melanoma_lab.comparison.pairing import aggregate_by_unit, assign_units, pair_runs
from melanoma_lab.comparison.statistics import ALPHA, mean_over_seeds
from melanoma_lab.comparison.study import StudyRun
from melanoma_lab.evaluation import influence
from melanoma_lab.evaluation.influence import Estimate
from melanoma_lab.tracking.arm_runs import RunKey

pytestmark = pytest.mark.unit

GROUPS = np.array(["a", "b", "c"])


def run(arm, seeds, folds=(0,), *, value=0.0, groups=GROUPS, influences=(0.0, 0.0, 0.0)):
    """A run of one seed and fold, or an ensemble of several."""
    many = len(seeds) * len(folds) > 1
    tags = {"arm": arm, "seed": str(seeds[0]), "fold": str(folds[0])}
    tags |= {"members": ",".join(map(str, seeds))} if many else {}
    tags |= {"member_folds": ",".join(map(str, folds))} if many else {}
    return StudyRun(
        run_id="",
        key=RunKey(arm, seeds[0], folds[0]),
        tags=tags,
        costs={},
        estimates={"accuracy": Estimate(value, groups, np.asarray(influences, float))},
        slugs=("x", "y"),
        confusion=np.zeros((2, 2), np.int64),
        judged="test",
        judged_images="",
        lone_classes=(),
        curves={},
    )


def singles(seeds, folds=(0,)):
    return [run("a", [seed], [fold], value=seed / 10) for seed in seeds for fold in folds]


def seeds_of(runs):
    return [sorted({seed for seed, _ in r.covers}) for r in runs]


def test_an_ensemble_is_held_against_the_mean_of_its_members():
    ensembles = [run("e", [0, 1, 2], value=0.5, influences=(0.3, 0, -0.3))]
    ensembles += [run("e", [3, 4, 5], value=0.9)]
    members = singles(range(6))
    members[0].estimates["accuracy"].influence[:] = (0.3, -0.3, 0)
    values, influences = aggregate_by_unit(ensembles, "accuracy", members)
    # 0.5 minus the mean of 0, 0.1 and 0.2; 0.9 minus that of 0.3, 0.4 and 0.5.
    np.testing.assert_allclose(values, [0.4, 0.5])
    np.testing.assert_allclose(influences, [[0.3 - 0.1, 0.1, -0.3], [0, 0, 0]])


def test_what_only_one_side_has_takes_no_part():
    ensembles = [run("e", seeds) for seeds in ([0, 1], [2, 3], [4, 5])]
    mine, theirs = pair_runs(ensembles, singles([0, 1, 2, 4, 5, 6]))
    assert seeds_of(mine) == [[0, 1], [4, 5]]
    assert seeds_of(theirs) == [[0], [1], [4], [5]]
    # Seen from the runs that the ensembles are made of it is the same.
    theirs, mine = pair_runs(singles([0, 1, 2, 4, 5, 6]), ensembles)
    assert seeds_of(mine) == [[0, 1], [4, 5]]
    assert pair_runs(ensembles, singles([0, 3, 5])) == ([], [])


def test_ensembles_that_share_a_seed_are_one():
    overlapping = [run("e", seeds) for seeds in ([5, 6], [0, 1, 2], [2, 3, 4], [7, 8])]
    assert assign_units(overlapping) == [1, 0, 0, 2]
    assert assign_units(singles([4, 2, 9])) == [1, 0, 2]


def test_ensembles_of_different_sizes_are_as_many_as_are_independent():
    three = [run("three", [0, 1, 2]), run("three", [3, 4, 5])]
    two = [run("two", seeds) for seeds in ([0, 1], [2, 3], [4, 5])]
    assert set(assign_units([*three, *two])) == {0}  # 0-2 touches 2-3, which touches 3-5
    values, _ = aggregate_by_unit(three, "accuracy", two)
    assert values.shape == (1,)


def test_folds_of_a_seed_are_averaged_on_both_sides():
    ensembles = [run("e", [seed], [0, 1, 2], value=0.9) for seed in (0, 1)]
    values, _ = aggregate_by_unit(ensembles, "accuracy", singles([0, 1], [0, 1, 2]))
    np.testing.assert_allclose(values, [0.9, 0.8])


def simulated(*, studies, ensembles, members, seed_sd, effect, rng):
    """Studies of ensembles and the runs they are made of; p values and the true difference.

    An ensemble's decisions have chance of their own, as large as a single run's and in part that of
    its members, so that without an effect it is as good as any of them.
    """
    n_lesions, n_seeds = LESIONS.sum(), ensembles * members
    y = np.repeat(np.arange(len(LESIONS)), LESIONS)
    easiness = np.linspace(1.0, 0.2, len(LESIONS))
    names = np.char.zfill(np.arange(n_lesions).astype(str), 3)
    scale = influence._jackknife_scale(np.arange(n_lesions), y)
    weight = 1 / (len(LESIONS) * LESIONS[y])

    def together(noise):  # of as large a variance as the members', and half of it theirs
        mean = noise.reshape(studies, ensembles, members, -1).sum(axis=2) / np.sqrt(members)
        own = rng.normal(scale=noise.std(), size=mean.shape)
        return (mean + own) / np.sqrt(2)

    shared = easiness[y] + rng.normal(scale=0.8, size=(studies, 1, n_lesions))
    of_seed = rng.normal(scale=seed_sd, size=(studies, n_seeds, 1))
    of_pair = rng.normal(scale=0.7, size=(studies, n_seeds, n_lesions))
    of_arm = rng.normal(scale=0.4, size=(2, studies, 1, n_lesions))
    right = [
        (shared + of_arm[0] + of_seed + of_pair > 0).astype(float),
        (shared + of_arm[1] + together(of_seed) + together(of_pair) + effect > 0).astype(float),
    ]
    sd = np.sqrt(0.8**2 + 0.4**2 + seed_sd**2 + 0.7**2)
    truth = (norm.cdf((easiness[y] + effect) / sd) - norm.cdf(easiness[y] / sd)) @ weight
    differences = []
    for study in range(studies):
        arms = []
        for arm, size in ((0, 1), (1, members)):
            runs = []
            for i, decided in enumerate(right[arm][study]):
                centre = np.array([decided[y == k].mean() for k in range(len(LESIONS))])[y]
                seeds = range(i * size, (i + 1) * size)
                influences = (decided - centre) * weight * scale
                value = decided @ weight
                runs.append(run(str(arm), seeds, value=value, groups=names, influences=influences))
            arms.append(runs)
        differences.append(aggregate_by_unit(arms[1], "accuracy", arms[0]))
    values, influences = map(np.stack, zip(*differences, strict=True))
    return mean_over_seeds(values, influences), truth


@pytest.mark.parametrize("seed_sd", [SMALL, LARGE])
@pytest.mark.parametrize(("ensembles", "members"), [(3, 3), (5, 2), (3, 5)])
def test_ensembles_as_good_as_their_members_are_called_different_no_more_often_than_said(
    ensembles, members, seed_sd
):
    rng = np.random.default_rng([ensembles, members, int(100 * seed_sd)])
    found, truth = simulated(
        studies=600, ensembles=ensembles, members=members, seed_sd=seed_sd, effect=0, rng=rng
    )
    assert truth == 0
    assert (found.p < ALPHA).sum() <= stats.binom.ppf(0.999, 600, ALPHA)


@pytest.mark.parametrize(("ensembles", "members"), [(3, 3), (5, 2)])
def test_intervals_of_ensembles_cover_what_they_say(ensembles, members):
    rng = np.random.default_rng([1, ensembles])
    found, truth = simulated(
        studies=600, ensembles=ensembles, members=members, seed_sd=0.2, effect=0.4, rng=rng
    )
    covered = (found.ci_low <= truth) & (truth <= found.ci_high)
    # 600 studies: a coverage of 95 % is measured to 1.8 points.
    assert 0.925 <= covered.mean() <= 0.995
    assert (found.p < ALPHA).mean() > 0.2
