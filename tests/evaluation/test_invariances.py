"""One table: what must not change a metric, for every metric of a run, with its interval if any.

A quantity is measured from the predictions of one split and returned as an array: one number, one
a class (axis 0), or an estimate with its bounds. A new metric enters the table by being logged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from melanoma_lab.evaluation import influence, metric_intervals, metrics
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import (
    FEWEST,
    choose_threshold,
    decision_curve,
    fit_temperature,
    measure_rates,
)
from melanoma_lab.evaluation.predictions import SplitPredictions
from tests.support.evaluation_cases import cases, random_case, split_of

pytestmark = pytest.mark.unit

Values = NDArray[np.float64]
Quantity = Callable[[SplitPredictions], Values]


def measure(metric: Callable[..., float | Values], split: SplitPredictions) -> Values:
    return np.asarray(metric(split.y_true, split.y_score), np.float64)


def bounds(estimate: IntervalEstimate) -> Values:
    return np.array([estimate.value, estimate.low, estimate.high])


def estimate(function: Callable[..., IntervalEstimate], split: SplitPredictions) -> Values:
    return bounds(function(split))


def estimate_each_class(
    function: Callable[..., IntervalEstimate], split: SplitPredictions
) -> Values:
    return np.array([bounds(function(split, slug)) for slug in split.slugs])


def threshold_of_each_class(split: SplitPredictions) -> Values:
    return np.array(
        [
            choose_threshold(split.y_true == k, split.y_score[:, k], 0.8)
            for k in range(len(split.slugs))
        ]
    )


def rates_of_each_class(split: SplitPredictions) -> Values:
    found = []
    for k in range(len(split.slugs)):
        rates = measure_rates(split.y_true == k, split.y_score[:, k], split.groups, 0.3)
        found.append([bounds(getattr(rates, n)) for n in ("sensitivity", "specificity", "ppv")])
    return np.array(found)


def net_benefit_of_each_class(split: SplitPredictions) -> Values:
    thresholds = np.array([0.1, 0.5])
    found = []
    for k in range(len(split.slugs)):
        curve = decision_curve(split.y_true == k, split.y_score[:, k], split.groups, thresholds)
        found.append([curve.network, curve.low, curve.high, curve.everybody])
    return np.array(found)


def temperature(split: SplitPredictions) -> Values:
    return np.array(fit_temperature(split.y_true, split.y_score).value)


SCALARS: dict[str, Quantity] = {
    **{name: partial(measure, metric) for name, metric in metrics.SPLIT_METRICS.items()},
    **{
        f"{name} with interval": partial(estimate, function)
        for name, function in metric_intervals.INTERVALS.items()
    },
    "temperature": temperature,
}
PER_CLASS: dict[str, Quantity] = {
    **{name: partial(measure, metric) for name, metric in metrics.CLASS_METRICS.items()},
    "auroc": partial(measure, metrics.auroc),
    **{
        f"{name} with interval": partial(estimate_each_class, function)
        for name, function in metric_intervals.CLASS_INTERVALS.items()
    },
    "threshold": threshold_of_each_class,
    "rates at a threshold": rates_of_each_class,
    "net benefit": net_benefit_of_each_class,
}
INFLUENCES: dict[str, Quantity] = {
    name: partial(measure, function) for name, function in influence.INFLUENCES.items()
}
QUANTITIES = SCALARS | PER_CLASS
#: Defined without any image of their class: shares of the others, and the thresholds' curves.
NEED_NO_IMAGE_OF_THE_CLASS = {"specificity", "specificity with interval", "net benefit"}
#: Bounds that are simulated, with draws for the groups by their number.
SIMULATED = {"ece with interval"}
#: Intervals of proportions, which count images too: Wilson's, by an effective number of them.
PROPORTIONS = {
    *("accuracy with interval", "balanced_accuracy with interval"),
    *("sensitivity with interval", "specificity with interval", "rates at a threshold"),
}

each_quantity = pytest.mark.parametrize("name", QUANTITIES)
# Intervals are simulated: some milliseconds an example.
few = settings(max_examples=10)


def grouped(y_true: NDArray[np.int64], y_score: Values, seed: int = 0) -> SplitPredictions:
    """A split in which each group has one to three images of one class."""
    sizes = np.random.default_rng(seed).integers(1, 4, size=len(y_true))
    groups = np.repeat(np.arange(len(y_true)), sizes)[: len(y_true)]
    return split_of(y_true, y_score, groups)


def reordered(split: SplitPredictions, order: NDArray[np.intp]) -> SplitPredictions:
    return split_of(split.y_true[order], split.y_score[order], split.groups[order])


def without_bounds(values: Values) -> Values:
    return values[..., 0]


def distinct(y_score: Values) -> Values:
    """Scores without ties: a tie goes to the first class, whatever its name."""
    return y_score + np.linspace(0, 1e-6, y_score.size).reshape(y_score.shape)


def test_the_table_has_every_metric_that_a_run_logs():
    run = random_case(60, 3, seed=0)
    split = split_of(*run)
    logged = {
        *metrics.compute_overall_metrics(split),
        *(n.partition("/")[0] for n in metrics.compute_class_metrics(split)),
        *(
            n.removeprefix("class_1_")
            for n in metrics.compute_positive_class_metrics(split, "class_1")
        ),
    }
    assert logged <= set(QUANTITIES)
    assert set(metrics.SPLIT_METRICS) <= set(INFLUENCES)


@each_quantity
@few
@given(case=cases(), seed=st.integers(0, 1000))
def test_the_order_of_images_does_not_matter(name, case, seed):
    split = grouped(*case, seed)
    order = np.random.default_rng(seed).permutation(len(split.y_true))
    got, expected = QUANTITIES[name](reordered(split, order)), QUANTITIES[name](split)
    if name in SIMULATED:
        got, expected = without_bounds(got), without_bounds(expected)
    assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("name", INFLUENCES)
@given(case=cases(), seed=st.integers(0, 1000))
def test_an_influence_goes_with_its_image(name, case, seed):
    order = np.random.default_rng(seed).permutation(len(case[0]))
    values = INFLUENCES[name](split_of(*case))
    assert values.shape[0] == len(case[0])
    got = INFLUENCES[name](split_of(case[0][order], case[1][order]))
    assert_allclose(got, values[order], atol=1e-12)


@each_quantity
@few
@given(case=cases(), random=st.randoms(use_true_random=False))
def test_renaming_classes_permutes_what_is_said_of_them(name, case, random):
    y_true, y_score = case[0], distinct(case[1])
    order = list(range(y_score.shape[1]))
    random.shuffle(order)
    expected = QUANTITIES[name](grouped(y_true, y_score))
    got = QUANTITIES[name](grouped(np.argsort(order)[y_true], y_score[:, order]))
    assert_allclose(got, expected if name in SCALARS else expected[order], atol=1e-9)


@each_quantity
@few
@given(case=cases(min_size=2))
def test_every_image_twice_changes_no_value(name, case):
    """Nor a bound that rests on groups alone: the second image shows no new lesion."""
    y_true, y_score = case
    once = grouped(y_true, y_score)
    twice = split_of(*(np.concatenate([x, x]) for x in (y_true, y_score, once.groups)))
    got, expected = QUANTITIES[name](twice), QUANTITIES[name](once)
    if name == "temperature" and len(y_true) < FEWEST <= 2 * len(y_true):
        return  # too few images to fit one, and enough
    if name in SIMULATED | PROPORTIONS:
        got, expected = without_bounds(got), without_bounds(expected)
    assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in QUANTITIES if n not in ("net benefit", "temperature")])
def test_no_images_are_undefined(name):
    split = split_of(np.empty(0, np.int64), np.empty((0, 3)), np.empty(0, np.int64))
    assert np.isnan(QUANTITIES[name](split)).all()


@each_quantity
@pytest.mark.parametrize("label", [0, 2])
def test_one_image_has_values_within_their_range_and_says_next_to_nothing(name, label):
    split = split_of(np.array([label]), np.array([[0.7, 0.1, 0.2]]), np.array([0]))
    values = QUANTITIES[name](split)
    assert not np.isinf(values).any()
    defined = values[~np.isnan(values)]
    lowest = -1 if name == "net benefit" else 0
    assert (defined >= lowest).all()
    assert (defined <= (2 if "log_loss" not in name else 20)).all()
    if name.endswith("with interval"):
        widths = values.reshape(-1, 3)[:, 2] - values.reshape(-1, 3)[:, 1]
        assert (np.isnan(widths) | (widths > 0.9)).all()


@pytest.mark.parametrize("name", PER_CLASS)
@few
@given(case=cases(min_size=4))
def test_an_absent_class_is_undefined_and_the_others_stay(name, case):
    y_true, y_score = case
    k = y_score.shape[1]
    never = np.zeros((len(y_true), 1))
    before = PER_CLASS[name](grouped(y_true, y_score))
    after = PER_CLASS[name](grouped(y_true, np.hstack([y_score, never])))
    assert_allclose(after[:k], before, atol=1e-9)
    if name in NEED_NO_IMAGE_OF_THE_CLASS:
        assert not np.isnan(after[k].ravel()[0])
    else:
        assert np.isnan(after[k].ravel()[0])


@pytest.mark.parametrize("name", [name for name in SCALARS if name != "temperature"])
@few
@given(case=cases(min_size=4))
def test_a_class_that_is_neither_there_nor_predicted_changes_no_mean(name, case):
    y_true, y_score = case
    never = np.zeros((len(y_true), 1))
    before, after = (
        SCALARS[name](grouped(y_true, scores)) for scores in (y_score, np.hstack([y_score, never]))
    )
    assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("name", QUANTITIES)
def test_ties_do_not_depend_on_the_order_of_images(name):
    """Every score is tied: no ranking is better than chance."""
    y_true = np.arange(24) % 3
    split = grouped(y_true, np.full((24, 3), 1 / 3))
    backwards = reordered(split, np.arange(24)[::-1])
    values = QUANTITIES[name](split)
    got = QUANTITIES[name](backwards)
    if name in SIMULATED:
        values, got = without_bounds(values), without_bounds(got)
    assert_allclose(got, values, atol=1e-12)
    if name in ("auroc", "macro_auroc"):
        assert_array_equal(values, np.full(values.shape, 0.5))


@pytest.mark.parametrize(
    "name", [*metrics.SPLIT_METRICS, *metrics.CLASS_METRICS, "auroc", "temperature"]
)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(name, wrong):
    """All others are measured from a predictions table, which refuses them too."""
    y_true, y_score = random_case(30, 3, seed=0)
    y_score[7, 1] = wrong
    with pytest.raises(ValueError, match="finite"):
        QUANTITIES[name](split_of(y_true, y_score))
