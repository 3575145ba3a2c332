"""The verdict: hand-worked tables, identities, and coverage by simulation.

The simulated study has four classes of 60, 30, 15 and 8 test lesions of one or two images, a
lesion's difficulty that both arms share and a part of its own in each, an effect of each seed, and
chance in every decision. Its true difference is known in closed form.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import norm

from melanoma_lab.comparison.statistics import (
    ALPHA,
    decide_verdict,
    holm,
    mean_over_seeds,
    seeds_needed,
)
from melanoma_lab.evaluation import influence

pytestmark = pytest.mark.unit

LESIONS = np.array([60, 30, 15, 8])
SMALL, LARGE = 0.03, 0.5


def by_class(metric, y):
    """Weight of each image in a metric that is a weighted mean of right decisions."""
    images = np.bincount(y)
    return {
        "balanced_accuracy": 1 / (len(images) * images[y]),
        "accuracy": np.full(len(y), 1 / len(y)),
        "sensitivity of the rarest class": (y == len(images) - 1) / images[-1],
    }[metric]


def simulate(metric, *, studies, seeds, seed_sd, effect, rng):
    """The analysis of many studies at once, and the true difference."""
    classes = len(LESIONS)
    lesion_class = np.repeat(np.arange(classes), LESIONS)
    per_lesion = rng.integers(1, 3, size=len(lesion_class))
    lesion = np.repeat(np.arange(len(lesion_class)), per_lesion)
    y = lesion_class[lesion]
    weight = by_class(metric, y)
    easiness = np.linspace(1.0, 0.2, classes)
    difficulty = rng.normal(scale=0.8, size=(studies, 1, len(lesion_class)))
    sd = np.sqrt(0.8**2 + 0.4**2 + seed_sd**2 + 0.5**2 + 0.5**2)
    scale = influence._jackknife_scale(lesion, y)
    values, influences, truths = [], [], []
    for arm in (0, 1):
        latent = easiness[lesion_class] + effect * arm + difficulty
        latent = latent + rng.normal(scale=0.4, size=difficulty.shape)
        latent = latent + rng.normal(scale=seed_sd, size=(studies, seeds, 1))
        latent = latent + rng.normal(scale=0.5, size=(studies, seeds, len(lesion_class)))
        latent = latent[..., lesion] + rng.normal(scale=0.5, size=(studies, seeds, len(y)))
        right = (latent > 0).astype(float)
        centre = (
            right.mean(axis=-1, keepdims=True)
            if metric == "accuracy"
            else np.stack([right[..., y == k].mean(axis=-1) for k in range(classes)], -1)[..., y]
        )
        values.append(right @ weight)
        first = np.flatnonzero(np.diff(lesion, prepend=-1))
        influences.append(np.add.reduceat((right - centre) * weight * scale, first, axis=-1))
        truths.append(norm.cdf((easiness[y] + effect * arm) / sd) @ weight)
    result = mean_over_seeds(values[1] - values[0], influences[1] - influences[0])
    return result, truths[1] - truths[0]


@pytest.mark.parametrize(
    "metric", ["balanced_accuracy", "accuracy", "sensitivity of the rarest class"]
)
@pytest.mark.parametrize("seed_sd", [SMALL, LARGE])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_what_they_say_they_cover(metric, seeds, seed_sd):
    rng = np.random.default_rng([seeds, int(seed_sd * 100)])
    how = {"studies": 1500, "seeds": seeds, "seed_sd": seed_sd, "rng": rng}
    with_effect, truth = simulate(metric, effect=0.4, **how)
    covered = (with_effect.ci_low <= truth) & (truth <= with_effect.ci_high)
    defined = ~np.isnan(with_effect.p)
    assert defined.mean() > 0.97
    # 1,500 studies: a coverage of 95 % is measured to 1.1 points.
    assert 0.93 <= covered[defined].mean() <= 0.985
    if metric != "sensitivity of the rarest class":
        assert (with_effect.p < ALPHA).mean() > (0.05 if seed_sd == LARGE else 0.25)


@pytest.mark.parametrize("seed_sd", [SMALL, LARGE])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_identical_arms_are_called_different_no_more_often_than_said(seeds, seed_sd):
    rng = np.random.default_rng([7, seeds, int(seed_sd * 100)])
    found, truth = simulate(
        "balanced_accuracy", studies=2000, seeds=seeds, seed_sd=seed_sd, effect=0, rng=rng
    )
    assert truth == 0
    verdicts = [
        decide_verdict("balanced_accuracy", d, p, seeds)
        for d, p in zip(found.mean, found.p, strict=True)
    ]
    calls = sum(verdict != "no evidence" for verdict in verdicts)
    # The upper end of what 2,000 studies of a true rate of 5 % give 999 times in 1,000.
    assert calls <= stats.binom.ppf(0.999, 2000, ALPHA)


@pytest.mark.parametrize("name", ["macro_auroc", "log_loss", "macro_f1", "ece"])
def test_identical_arms_by_metrics_of_probabilities(name):
    """Three seeds, forty lesions and real scores: the whole way from probabilities."""
    rng = np.random.default_rng(11)
    y = np.repeat([0, 1, 2], [20, 12, 8])
    scale = influence._jackknife_scale(np.arange(len(y)), y)
    from melanoma_lab.evaluation.metrics import SPLIT_METRICS

    values, influences = np.empty((250, 3, 2)), np.empty((250, 3, 2, len(y)))
    for study in range(250):
        shared = rng.normal(size=(len(y), 3))
        for seed, arm in np.ndindex(3, 2):
            logits = 1.5 * np.eye(3)[y] + shared + rng.normal(scale=0.7, size=shared.shape)
            logits += rng.normal(scale=0.2, size=3)
            score = np.exp(logits)
            score /= score.sum(axis=1, keepdims=True)
            values[study, seed, arm] = SPLIT_METRICS[name](y, score)
            influences[study, seed, arm] = influence.INFLUENCES[name](y, score) * scale
    found = mean_over_seeds(np.diff(values)[..., 0], np.diff(influences, axis=2)[:, :, 0])
    assert (found.p < ALPHA).sum() <= stats.binom.ppf(0.999, 250, ALPHA)
    # One arm's interval must hold too; its truth is the mean of all studies.
    alone = mean_over_seeds(values[..., 0], influences[..., 0, :])
    truth = values[..., 0].mean()
    assert np.mean((alone.ci_low <= truth) & (truth <= alone.ci_high)) > 0.91


@pytest.mark.parametrize("sign", [1, -1])
def test_without_chance_in_the_lesions_it_is_the_t_test(sign):
    d = sign * np.array([0.02, 0.05, 0.03, 0.06])
    found = mean_over_seeds(d, np.zeros((4, 5)))
    expected = stats.ttest_1samp(d, 0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(expected.confidence_interval()))


def test_without_chance_in_the_seeds_it_is_the_lesions_alone():
    # Two hundred lesions, each +-0.01: variance 200 * 0.01^2 = 0.02, 2 * 200 degrees of freedom.
    u = np.tile(np.resize([0.01, -0.01], 200), (3, 1))
    found = mean_over_seeds(np.full(3, 0.5), u)
    assert found.seed_variance == 0
    assert found.lesion_variance == pytest.approx(0.02)
    assert found.ci_high - 0.5 == pytest.approx(stats.t.isf(0.025, 400) * np.sqrt(0.02))


def test_p_and_interval_agree():
    rng = np.random.default_rng(3)
    found = mean_over_seeds(rng.normal(0.5, 0.4, (500, 4)), rng.normal(0, 0.03, (500, 4, 30)))
    outside = (found.ci_low > 0) | (found.ci_high < 0)
    np.testing.assert_array_equal(found.p < ALPHA, outside)
    assert 0 < outside.mean() < 1


def test_one_seed_has_a_mean_and_no_interval():
    found = mean_over_seeds([0.1], np.ones((1, 4)))
    assert found.mean == 0.1
    assert np.isnan([found.sd, found.ci_low, found.ci_high, found.p]).all()


def test_nothing_that_varies_gives_no_interval():
    found = mean_over_seeds(np.zeros(3), np.zeros((3, 4)))
    assert found.mean == 0
    assert np.isnan([found.ci_low, found.ci_high, found.p]).all()


def test_nan_stays_nan():
    found = mean_over_seeds([0.1, np.nan, 0.2], np.zeros((3, 4)))
    assert np.isnan([found.mean, found.ci_low, found.p]).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"Expected values of shape .* Received \(3,\) and \(2, 4"):
        mean_over_seeds(np.zeros(3), np.zeros((2, 4)))


@given(st.floats(-1, 1), st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_intervals_move_and_scale_with_the_values(shift, scale, seed):
    rng = np.random.default_rng(seed)
    d, u = rng.normal(size=4), rng.normal(size=(4, 12))
    first, second = mean_over_seeds(d, u), mean_over_seeds(scale * d + shift, scale * u)
    assert second.ci_low == pytest.approx(scale * first.ci_low + shift)
    assert second.ci_high == pytest.approx(scale * first.ci_high + shift)


def test_holm_by_hand():
    # Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.02, 0.03, 0.06, 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    first, missing, last = holm([0.02, float("nan"), 0.04])
    assert (first, last) == pytest.approx((0.04, 0.04))
    assert np.isnan(missing)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_none_and_bonferroni(p):
    adjusted = np.array(holm(p))
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize(
    ("metric", "difference", "p", "seeds", "verdict"),
    [
        ("accuracy", 0.1, 0.01, 3, "helps"),
        ("accuracy", -0.1, 0.01, 3, "hurts"),
        ("log_loss", -0.1, 0.01, 3, "helps"),
        ("generalisation_gap", 0.1, 0.01, 5, "hurts"),
        ("accuracy", 0.1, 0.05, 3, "no evidence"),
        ("accuracy", 0.0, float("nan"), 3, "no evidence"),
        ("accuracy", 0.1, 0.01, 2, "too few runs"),
    ],
)
def test_verdicts(metric, difference, p, seeds, verdict):
    assert decide_verdict(metric, difference, p, seeds) == verdict


def test_seeds_needed_find_the_difference_that_often():
    n = seeds_needed(0.05, seed_variance=0.04**2, lesion_variance=0.01**2)
    rng = np.random.default_rng(0)
    studies = 4000
    lesions = rng.normal(scale=0.01 / np.sqrt(400), size=(studies, 1, 400))
    u = np.repeat(lesions, n, axis=1)
    d = 0.05 + u.sum(axis=-1) + rng.normal(scale=0.04, size=(studies, n))
    found = mean_over_seeds(d, u).p < ALPHA
    assert 5 < n < 20
    assert 0.77 < found.mean() < 0.9


def test_seeds_needed_where_the_lesions_are_too_few_or_nothing_is_known():
    assert seeds_needed(0.05, 0.01, 0.05**2) is None
    assert seeds_needed(0.05, float("nan"), 0.0) is None
    assert seeds_needed(0.0, 0.01, 0.0) is None
    assert seeds_needed(0.5, 1e-8, 1e-8) == 3


@given(
    difference=st.floats(1e-12, 1),
    seed_variance=st.floats(0, 1),
    share=st.floats(0, 1, exclude_max=True),
)
@example(0.01, 1.0, 1 - 1e-16)  # beyond 64 bits: the lesions' chance is all but too large
@example(1e-10, 1.0, 0.0)
def test_seeds_needed_are_a_number_that_somebody_may_train_or_none(
    difference, seed_variance, share
):
    reach = norm.isf(0.025) + norm.isf(0.2)
    n = seeds_needed(difference, seed_variance, share * (difference / reach) ** 2)
    assert n is None or 3 <= n <= 100_000
