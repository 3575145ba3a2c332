"""Three layers: tables worked by hand, scikit-learn as oracle, identities that must hold."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from melanoma_lab.evaluation import metrics
from tests.support.evaluation_cases import cases, random_case

pytestmark = pytest.mark.unit

SCALARS = [
    metrics.accuracy,
    metrics.balanced_accuracy,
    metrics.macro_auroc,
    metrics.macro_f1,
    metrics.log_loss,
    metrics.brier,
    metrics.ece,
]
PER_CLASS = [metrics.sensitivity, metrics.specificity, metrics.auroc]

# Six images, three classes, nothing of class 2 missed, class 0 mistaken once for each other class.
#   true 0: decided 0, 1, 2; true 1: decided 1, 1; true 2: decided 2
Y_TRUE = np.array([0, 0, 0, 1, 1, 2])
Y_SCORE = np.array(
    [
        [0.6, 0.3, 0.1],
        [0.3, 0.5, 0.2],
        [0.2, 0.3, 0.5],
        [0.1, 0.8, 0.1],
        [0.3, 0.6, 0.1],
        [0.0, 0.2, 0.8],
    ]
)


def name_of(function):
    return function.__name__


# By hand


def test_confusion_matrix_by_hand():
    assert_array_equal(metrics.confusion_matrix(Y_TRUE, Y_SCORE), [[1, 1, 1], [0, 2, 0], [0, 0, 1]])


def test_decisions_by_hand():
    assert metrics.accuracy(Y_TRUE, Y_SCORE) == pytest.approx(4 / 6)
    assert_allclose(metrics.sensitivity(Y_TRUE, Y_SCORE), [1 / 3, 1, 1])
    assert_allclose(metrics.specificity(Y_TRUE, Y_SCORE), [3 / 3, 3 / 4, 4 / 5])
    assert metrics.balanced_accuracy(Y_TRUE, Y_SCORE) == pytest.approx((1 / 3 + 1 + 1) / 3)
    # F1 = 2 TP / (2 TP + FP + FN): 2/(2+0+2), 4/(4+1+0), 2/(2+1+0)
    assert metrics.macro_f1(Y_TRUE, Y_SCORE) == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)


def test_auroc_by_hand():
    # Class 0: 0.6, 0.3, 0.2 against 0.1, 0.3, 0.0: wins 3 + 2.5 + 2 of 9.
    # Class 1: 0.8, 0.6 against 0.3, 0.5, 0.3, 0.2: wins all. Class 2: 0.8 against all: wins all.
    assert_allclose(metrics.auroc(Y_TRUE, Y_SCORE), [7.5 / 9, 1, 1])
    assert metrics.macro_auroc(Y_TRUE, Y_SCORE) == pytest.approx((7.5 / 9 + 2) / 3)


def test_log_loss_by_hand():
    expected = -np.log([0.6, 0.3, 0.2, 0.8, 0.6, 0.8]).mean()
    assert metrics.log_loss(Y_TRUE, Y_SCORE) == pytest.approx(expected)


def test_brier_by_hand():
    # The first image: (0.6 - 1)^2 + 0.3^2 + 0.1^2 = 0.26, and so on.
    expected = np.mean([0.26, 0.49 + 0.25 + 0.04, 0.64 + 0.09 + 0.25, 0.06, 0.26, 0.08])
    assert metrics.brier(Y_TRUE, Y_SCORE) == pytest.approx(expected)


def test_one_certain_mistake_costs_a_finite_loss():
    certain = np.array([[1.0, 0.0]])
    assert metrics.log_loss(np.array([1]), certain) == pytest.approx(np.log(1e7))
    assert metrics.log_loss(np.array([0]), certain) == 0
    assert metrics.brier(np.array([1]), certain) == 2


def test_a_probability_that_rounded_to_above_one_costs_nothing():
    rounded = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], np.float64)
    assert rounded[0, 0] > 1
    assert metrics.log_loss(np.array([0]), rounded) == 0


def test_a_tie_is_decided_for_the_first_class():
    tied = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert_array_equal(metrics.confusion_matrix(np.array([1, 1]), tied)[1], [1, 1, 0])


def test_an_absent_class_is_undefined_and_left_out_of_macro_means():
    y_true, y_score = Y_TRUE[:5], Y_SCORE[:5]
    sensitivity = metrics.sensitivity(y_true, y_score)
    auroc = metrics.auroc(y_true, y_score)
    assert np.isnan(sensitivity[2])
    assert np.isnan(auroc[2])
    assert metrics.specificity(y_true, y_score)[2] == pytest.approx(4 / 5)
    assert metrics.balanced_accuracy(y_true, y_score) == pytest.approx(sensitivity[:2].mean())
    assert metrics.macro_auroc(y_true, y_score) == pytest.approx(auroc[:2].mean())
    # The false alarm of the absent class hurts class 0's recall, and adds no F1 of zero.
    assert metrics.macro_f1(y_true, y_score) == pytest.approx((1 / 2 + 4 / 5) / 2)


def test_one_class_only():
    y_true, y_score = Y_TRUE[:3], Y_SCORE[:3]
    assert_array_equal(metrics.sensitivity(y_true, y_score), [1 / 3, np.nan, np.nan])
    assert_allclose(metrics.specificity(y_true, y_score), [np.nan, 2 / 3, 2 / 3])
    assert np.isnan(metrics.auroc(y_true, y_score)).all()
    assert np.isnan(metrics.macro_auroc(y_true, y_score))
    assert metrics.balanced_accuracy(y_true, y_score) == metrics.accuracy(y_true, y_score)


@pytest.mark.parametrize("metric", [*SCALARS, *PER_CLASS], ids=name_of)
@pytest.mark.parametrize(
    ("y_true", "y_score", "message"),
    [
        (np.array([0, 1]), np.full((3, 2), 0.5), "Expected y_true of shape"),
        (np.array([[0, 1]]), np.full((1, 2), 0.5), "Expected y_true of shape"),
        (np.array([0, 1]), np.full(2, 0.5), "Expected y_true of shape"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "Expected labels from 0 to 1"),
        (np.array([0, -1]), np.full((2, 2), 0.5), "Received labels from -1 to 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(metric, y_true, y_score, message):
    with pytest.raises(ValueError, match=message):
        metric(y_true, y_score)


# Against scikit-learn


@given(cases())
def test_decisions_agree_with_scikit_learn(case):
    y_true, y_score = case
    k = y_score.shape[1]
    decided = y_score.argmax(axis=1)
    present = np.unique(y_true)
    assert metrics.accuracy(*case) == pytest.approx(oracle.accuracy_score(y_true, decided))
    recalls = oracle.recall_score(
        y_true, decided, labels=range(k), average=None, zero_division=np.nan
    )
    assert_allclose(metrics.sensitivity(*case), recalls)
    assert metrics.balanced_accuracy(*case) == pytest.approx(np.nanmean(recalls))
    for label in range(k):
        others = y_true != label
        expected = (decided[others] != label).mean() if others.any() else np.nan
        assert_allclose(metrics.specificity(*case)[label], expected)
    f1 = oracle.f1_score(y_true, decided, labels=present, average="macro")
    assert metrics.macro_f1(*case) == pytest.approx(f1)
    assert_array_equal(
        metrics.confusion_matrix(*case),
        oracle.confusion_matrix(y_true, decided, labels=range(k)),
    )


@given(cases())
def test_auroc_agrees_with_scikit_learn(case):
    y_true, y_score = case
    expected = [
        oracle.roc_auc_score(y_true == label, y_score[:, label])
        if 0 < (y_true == label).sum() < len(y_true)
        else np.nan
        for label in range(y_score.shape[1])
    ]
    assert_allclose(metrics.auroc(*case), expected)
    if not np.isnan(expected).all():
        assert metrics.macro_auroc(*case) == pytest.approx(np.nanmean(expected))


@given(cases())
def test_scores_agree_with_scikit_learn(case):
    y_true, y_score = case
    labels = range(y_score.shape[1])
    # Scikit-learn clips at the smallest step above 1 instead: no zeros for this comparison.
    soft = (y_score + 0.01) / (y_score + 0.01).sum(axis=1, keepdims=True)
    assert metrics.log_loss(y_true, soft) == pytest.approx(
        oracle.log_loss(y_true, soft, labels=labels)
    )
    one_hot = np.eye(y_score.shape[1])[y_true]
    # Its multi-class Brier score came after the oldest version that the lab works with.
    per_class = oracle.mean_squared_error(one_hot, y_score, multioutput="raw_values")
    assert metrics.brier(*case) == pytest.approx(per_class.sum())


# Identities


@given(cases())
def test_accuracy_is_sensitivity_weighted_by_prevalence(case):
    y_true, y_score = case
    prevalence = np.bincount(y_true, minlength=y_score.shape[1]) / len(y_true)
    weighted = np.nansum(prevalence * metrics.sensitivity(*case))
    assert metrics.accuracy(*case) == pytest.approx(weighted)


@given(cases())
def test_two_classes_mirror_each_other(case):
    y_true, y_score = case
    binary = (y_true > 0).astype(np.int64), np.c_[y_score[:, 0], 1 - y_score[:, 0]]
    assert_allclose(metrics.sensitivity(*binary), metrics.specificity(*binary)[::-1])
    assert_allclose(*metrics.auroc(*binary))


@given(cases())
def test_a_rising_transformation_leaves_auroc_alone(case):
    y_true, y_score = case
    assert_allclose(metrics.auroc(y_true, y_score), metrics.auroc(y_true, np.sqrt(y_score)))


@given(cases())
def test_a_constant_score_is_at_chance(case):
    y_true, y_score = case
    k = y_score.shape[1]
    uniform = np.full_like(y_score, 1 / k)
    assert metrics.log_loss(y_true, uniform) == pytest.approx(np.log(k))
    assert metrics.brier(y_true, uniform) == pytest.approx(1 - 1 / k)
    auroc = metrics.auroc(y_true, uniform)
    assert (auroc[~np.isnan(auroc)] == 0.5).all()
    if 0 in y_true:
        assert metrics.balanced_accuracy(y_true, uniform) == pytest.approx(
            1 / len(np.unique(y_true))
        )


@given(cases())
def test_certainty_in_the_truth_is_perfect(case):
    y_true, y_score = case
    truth = np.eye(y_score.shape[1])[y_true]
    several = len(np.unique(y_true)) > 1
    expected = [1, 1, 1 if several else np.nan, 1, 0, 0, 0]
    assert_array_equal([metric(y_true, truth) for metric in SCALARS], expected)


# Against the ISIC challenge's scorer


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 8])
def test_agrees_with_the_isic_challenge_scorer(seed, k):
    """Where both mean the same: every class is present and no scores are tied.

    Its sensitivity and specificity decide each class at 0.5, ours by the highest probability;
    they mean the same for a class against the sum of the others.
    """
    scorer = pytest.importorskip("isic_challenge_scoring.metrics")
    confusion = pytest.importorskip("isic_challenge_scoring.confusion")
    y_true, y_score = random_case(200, k, seed)
    truth, scores, weights = pd.DataFrame(np.eye(k)[y_true]), pd.DataFrame(y_score), np.ones(200)
    assert metrics.balanced_accuracy(y_true, y_score) == pytest.approx(
        scorer.balanced_multiclass_accuracy(truth, scores, pd.Series(weights))
    )
    auroc = [scorer.auc(truth[i], scores[i], weights) for i in range(k)]
    assert_allclose(metrics.auroc(y_true, y_score), auroc)
    for i in range(k):
        rest = (y_true == i).astype(np.int64), np.c_[1 - y_score[:, i], y_score[:, i]]
        counts = confusion.create_binary_confusion_matrix(y_true == i, y_score[:, i] > 0.5)
        assert metrics.sensitivity(*rest)[1] == pytest.approx(scorer.binary_sensitivity(counts))
        assert metrics.specificity(*rest)[1] == pytest.approx(scorer.binary_specificity(counts))


def test_the_isic_challenge_scorer_counts_undefined_as_perfect():
    """The difference that the module names; ours is NaN (test_an_absent_class_is_undefined...)."""
    scorer = pytest.importorskip("isic_challenge_scoring.metrics")
    nothing_positive = pd.Series({"TP": 0, "TN": 4, "FP": 1, "FN": 0})
    assert scorer.binary_sensitivity(nothing_positive) == 1.0
