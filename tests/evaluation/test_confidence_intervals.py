import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from melanoma_lab.evaluation.confidence_intervals import (
    UNDEFINED,
    IntervalEstimate,
    average_proportions,
    compute_mean_interval,
    compute_wilson_interval,
    estimate_proportion,
)

pytestmark = pytest.mark.unit


@given(st.integers(1, 300), st.data())
def test_wilson_is_that_of_scipy(n, data):
    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(
        compute_wilson_interval(k / n, n, norm.ppf(0.975)), expected, atol=1e-12
    )


def test_single_images_are_independent():
    hit = np.arange(40) < 30
    found = estimate_proportion(hit, np.arange(40))
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx(
        compute_wilson_interval(0.75, 40, t.ppf(0.975, 39))
    )


def test_copies_add_nothing():
    hit = np.arange(20) < 15
    once = estimate_proportion(hit, np.arange(20))
    thrice = estimate_proportion(np.repeat(hit, 3), np.repeat(np.arange(20), 3))
    assert thrice.value == once.value
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_all_alike_counts_lesions():
    found = estimate_proportion(np.ones(30, bool), np.repeat(np.arange(10), 3))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(10 / (10 + t.ppf(0.975, 9) ** 2))
    assert round(found.low, 2) == 0.66  # what FEW_POSITIVE says


def test_one_lesion_says_next_to_nothing():
    found = estimate_proportion(np.array([True, True, False]), np.zeros(3, np.int64))
    assert found.high - found.low > 0.97


def test_no_image_is_undefined():
    assert np.isnan(estimate_proportion(np.array([], bool), np.array([], np.int64)).value)


@pytest.mark.parametrize("n_groups", [12, 40])
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_covers_the_truth(n_groups, alike, share):
    """Lesions of 1 to 3 images, all decided alike in a share of them, else independently."""
    rng = np.random.default_rng([n_groups, int(10 * alike), int(10 * share)])
    covered = 0
    for _ in range(400):
        groups = np.repeat(np.arange(n_groups), rng.choice([1, 1, 1, 2, 3], n_groups))
        together = (rng.random(n_groups) < alike)[groups]
        hit = np.where(
            together, (rng.random(n_groups) < share)[groups], rng.random(len(groups)) < share
        )
        found = estimate_proportion(hit, groups)
        covered += found.low <= share <= found.high
    assert 0.93 <= covered / 400 <= 0.995  # chance: 2.2 points either way


def test_by_hand():
    """Four lesions of two images, two of them decided both ways.

    Within lesions 1/2 + 1/2 over 8 - 4, which is as much as between any two: d = 1 + 0.
    """
    groups = np.repeat(np.arange(4), 2)
    found = estimate_proportion(np.array([1, 1, 0, 0, 1, 0, 1, 0], bool), groups)
    # r = 1 - (1 / 4) / (1 / 4) = 0
    assert (found.low, found.high) == pytest.approx(
        compute_wilson_interval(0.5, 8, t.ppf(0.975, 3))
    )
    found = estimate_proportion(np.array([1, 1, 1, 1, 0, 0, 1, 0], bool), groups)
    # r = 1 - (1 / 2 / 4) / (5 / 8 * 3 / 8) = 7 / 15; d = 1 + r (16 / 8 - 1)
    assert (found.low, found.high) == pytest.approx(
        compute_wilson_interval(5 / 8, 8 / (22 / 15), t.ppf(0.975, 3))
    )


def test_mean_adds_up_squares_and_leaves_out_the_undefined():
    parts = [IntervalEstimate(0.8, 0.6, 0.9), UNDEFINED, IntervalEstimate(0.4, 0.1, 0.8)]
    found = average_proportions(parts)
    assert found.value == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - np.hypot(0.2, 0.3) / 2)
    assert found.high == pytest.approx(0.6 + np.hypot(0.1, 0.4) / 2)
    assert np.isnan(average_proportions([UNDEFINED]).value)
    assert np.isnan(average_proportions([]).value)
    one = IntervalEstimate(0.5, 0.4, 0.7)
    alone = average_proportions([one])
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.5, 0.4, 0.7))


def test_the_mean_of_single_images_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(size=(30, 2))
    low, high = compute_mean_interval(values, np.arange(30))
    half = t.ppf(0.975, 29) * values.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(low, values.mean(axis=0) - half)
    np.testing.assert_allclose(high, values.mean(axis=0) + half)
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(compute_mean_interval(values[order], np.arange(30)[order])[0], low)


def test_the_mean_of_copies_is_no_surer():
    values = np.random.default_rng(0).normal(size=(30, 1))
    groups = np.arange(30)
    np.testing.assert_allclose(
        compute_mean_interval(np.repeat(values, 4, axis=0), np.repeat(groups, 4)),
        compute_mean_interval(values, groups),
    )
    assert np.isnan(compute_mean_interval(values, np.zeros(30, np.int64))).all()
