import numpy as np
import pytest
from hypothesis import given

from melanoma_lab.evaluation.decision_rule import THRESHOLDS, decision_curve
from tests.support.evaluation_cases import cases, random_case

pytestmark = pytest.mark.unit


def test_by_hand():
    """Two of five are melanomas; from 20 % on, a needless treatment costs a quarter of a find."""
    positive = np.array([True, True, False, False, False])
    score = np.array([0.9, 0.1, 0.5, 0.2, 0.15])
    curve = decision_curve(positive, score, np.arange(5), np.array([0.2, 0.5]))
    np.testing.assert_allclose(curve.network, [1 / 5 - 2 / 5 / 4, 1 / 5 - 1 / 5])
    np.testing.assert_allclose(curve.everybody, [2 / 5 - 3 / 5 / 4, 2 / 5 - 3 / 5])
    assert (curve.low < curve.network).all()
    assert (curve.high > curve.network).all()


@given(cases(min_size=2))
def test_identities(case):
    positive, score = case[0] == 0, case[1][:, 0]
    groups = np.arange(len(score))
    # Who is never sure treats nobody, whose net benefit is 0; who always is, everybody.
    assert not decision_curve(positive, np.zeros(len(score)), groups).network.any()
    always = decision_curve(positive, np.ones(len(score)), groups)
    np.testing.assert_allclose(always.network, always.everybody)
    # Nothing is worth more than to treat the positives and nobody else.
    known = decision_curve(positive, positive.astype(float), groups)
    np.testing.assert_allclose(known.network, positive.mean())
    found = decision_curve(positive, score, groups)
    assert (found.network <= positive.mean() + 1e-12).all()
    prevalence = positive.mean()
    np.testing.assert_allclose(
        found.everybody, (prevalence - THRESHOLDS) / (1 - THRESHOLDS), atol=1e-12
    )


def test_copies_of_a_lesion_make_it_no_surer():
    y_true, y_score = random_case(80, 2, seed=0)
    positive, score, groups = y_true == 1, y_score[:, 1], np.arange(80)
    once = decision_curve(positive, score, groups)
    often = decision_curve(*(np.repeat(values, 5) for values in (positive, score, groups)))
    np.testing.assert_allclose(often.low, once.low)
    assert once.thresholds[0] == pytest.approx(0.01)
    assert once.thresholds[-1] == pytest.approx(0.6)
