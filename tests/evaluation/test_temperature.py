import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.decision_rule import SMALLEST, Temperature, fit_temperature
from melanoma_lab.evaluation.metrics import ece
from tests.support.evaluation_cases import cases, random_case, softmax

pytestmark = pytest.mark.unit


def drawn(n: int, temperature: float, seed: int = 0):
    """Labels drawn from the probabilities of logits, and those of logits times a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, 4))
    y_true = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return y_true.clip(max=3), softmax(logits * temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_what_the_logits_were_multiplied_by(temperature):
    y_true, y_score = drawn(20_000, temperature)
    fitted = fit_temperature(y_true, y_score)
    assert fitted.value == pytest.approx(temperature, rel=0.03)
    assert fitted.n == 20_000
    assert not fitted.why_not
    assert ece(y_true, fitted.apply(y_score)) < 0.015


def test_by_hand():
    """Three of four right at 90 %: the odds 9 are to be the odds 3, so T = log 9 / log 3 = 2."""
    y_true = np.tile([0, 0, 0, 1], 10)
    y_score = np.tile([0.9, 0.1], (40, 1))
    fitted = fit_temperature(y_true, y_score)
    assert fitted.value == pytest.approx(2)
    np.testing.assert_allclose(fitted.apply(y_score), np.tile([0.75, 0.25], (40, 1)))


@given(cases(min_size=30), st.floats(0.2, 5))
def test_no_other_temperature_has_a_lower_loss(case, sharpness):
    y_true, y_score = case
    y_score = softmax(sharpness * np.log(y_score + 1e-3))

    def loss(temperature):
        return metrics.log_loss(y_true, Temperature(temperature, 1).apply(y_score))

    fitted = fit_temperature(y_true, y_score)
    if fitted.why_not:
        assert fitted.value == 1
        return
    best = minimize_scalar(lambda t: loss(np.exp(t)), bounds=np.log([0.01, 100]), method="bounded")
    assert loss(fitted.value) <= best.fun + 1e-9
    assert loss(fitted.value) <= metrics.log_loss(y_true, y_score) + 1e-9


@given(cases(), st.floats(0.05, 20))
def test_no_decision_changes_and_rows_sum_to_one(case, value):
    _, y_score = case
    calibrated = Temperature(value, 1).apply(y_score)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), y_score.argmax(axis=1))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_zeros_of_float32_cost_much_but_not_everything():
    y_score = np.tile([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], (10, 1))
    fitted = fit_temperature(np.tile([0, 0, 1, 0], 10), y_score)
    # Three of four right at the odds 1 / SMALLEST.
    assert fitted.value == pytest.approx(-np.log(SMALLEST) / np.log(3))
    assert np.isfinite(fitted.apply(y_score)).all()


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ((np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])), "no wrong decision"),
        ((np.array([1, 1]), np.array([[0.6, 0.4], [0.3, 0.7]])), ""),  # one class, a mistake
        (
            (np.array([1, 0]), np.array([[0.9, 0.1], [0.2, 0.8]])),
            "equal probabilities for all classes are no worse",
        ),
        (
            (np.array([1, 0]), np.full((2, 2), 0.5)),
            "equal probabilities for all classes are no worse",
        ),
    ],
)
def test_where_there_is_no_best_temperature_nothing_changes(case, why):
    case = np.tile(case[0], 20), np.tile(case[1], (20, 1))
    fitted = fit_temperature(*case)
    assert (why in fitted.why_not) if why else not fitted.why_not
    if why:
        assert fitted.value == 1
        np.testing.assert_array_equal(fitted.apply(case[1]), case[1])


@pytest.mark.parametrize(("n", "enough"), [(0, False), (29, False), (30, True)])
def test_a_handful_of_images_fits_none(n, enough):
    y_true, y_score = drawn(n, 2.0)
    fitted = fit_temperature(y_true, y_score)
    assert (fitted.value != 1) == enough
    assert fitted.n == n
    assert fitted.why_not == ("" if enough else f"there are {n} validation images; 30 are needed")


def test_refuses_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="Expected y_true of shape"):
        fit_temperature(np.array([0]), random_case(2, 3, 0)[1])
