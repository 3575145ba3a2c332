import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from melanoma_lab.evaluation.decision_rule import choose_threshold, measure_rates
from tests.support.evaluation_cases import cases

pytestmark = pytest.mark.unit

TARGETS = st.floats(0.01, 1)


def test_by_hand():
    positive = np.array([True, True, True, True, False, False])
    score = np.array([0.9, 0.7, 0.4, 0.2, 0.8, 0.3])
    assert choose_threshold(positive, score, 0.5) == 0.7
    assert choose_threshold(positive, score, 0.51) == 0.4
    assert choose_threshold(positive, score, 0.75) == 0.4
    assert choose_threshold(positive, score, 1) == 0.2
    found = measure_rates(positive, score, np.array([0, 0, 1, 2, 3, 4]), 0.4)
    assert (found.n_images, found.n_lesions) == (6, 5)
    assert (found.positive_images, found.positive_lesions) == (4, 3)
    assert found.sensitivity.value == 3 / 4
    assert found.specificity.value == 1 / 2
    assert found.ppv.value == 3 / 4
    assert found.npv.value == 1 / 2


@pytest.mark.parametrize(
    ("target", "n", "needed"),
    # The last two products are a hair more than 7 and 55.
    [(0.7, 10, 7), (0.9, 10, 9), (0.1, 10, 1), (0.29, 10, 3), (0.28, 25, 7), (0.55, 100, 55)],
)
def test_a_target_that_can_be_met_exactly_is(target, n, needed):
    score = np.arange(n, 0, -1) / n
    assert choose_threshold(np.ones(n, bool), score, target) == score[needed - 1]


def test_without_a_positive_nothing_is_defined():
    positive, score = np.zeros(3, bool), np.array([0.1, 0.2, 0.3])
    threshold = choose_threshold(positive, score, 0.9)
    assert np.isnan(threshold)
    found = measure_rates(np.array([True, False, False]), score, np.arange(3), threshold)
    for rate in (found.sensitivity, found.specificity, found.ppv, found.npv):
        assert np.isnan(rate.value)
    assert found.positive_images == 1


@given(cases(), TARGETS)
def test_it_is_the_largest_that_reaches_the_target(case, target):
    positive, score = case[0] == 0, case[1][:, 0]
    threshold = choose_threshold(positive, score, target)
    if not positive.any():
        assert np.isnan(threshold)
        return
    assert (score[positive] >= threshold).mean() >= target - 1e-9
    assert (score[positive] > threshold).mean() < target
    if not positive.all():
        _, sensitivity, thresholds = roc_curve(positive, score, drop_intermediate=False)
        assert threshold == thresholds[np.argmax(sensitivity >= target - 1e-9)]


@given(cases(), TARGETS, TARGETS)
def test_the_more_is_to_be_found_the_lower_it_is(case, one, other):
    positive, score = case[0] == 0, case[1][:, 0]
    if positive.any():
        less, more = sorted((one, other))
        assert choose_threshold(positive, score, more) <= choose_threshold(positive, score, less)


@given(cases(), st.floats(0, 1))
def test_rates_are_those_of_scikit_learn(case, threshold):
    positive, score = case[0] == 0, case[1][:, 0]
    found = measure_rates(positive, score, np.arange(len(score)), threshold)
    (tn, fp), (fn, tp) = confusion_matrix(positive, score >= threshold, labels=[False, True])
    for rate, hit, n in (
        (found.sensitivity, tp, tp + fn),
        (found.specificity, tn, tn + fp),
        (found.ppv, tp, tp + fp),
        (found.npv, tn, tn + fn),
    ):
        if n:
            assert rate.value == pytest.approx(hit / n)
            assert 0 <= rate.low <= rate.value <= rate.high <= 1
        else:
            assert np.isnan(rate.value)
