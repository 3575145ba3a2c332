import numpy as np
import pytest

from melanoma_lab.evaluation.evaluated_run import compare_with_chance
from melanoma_lab.evaluation.predictions import Predictions
from tests.support.evaluation_cases import Case, random_case, softmax, table_of

pytestmark = pytest.mark.unit


def verdict(case: Case) -> str:
    return compare_with_chance(Predictions(table_of(case))).verdict


def imbalanced(n: int, shares: tuple[float, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), size=n, p=shares)


def constant(y_true: np.ndarray, answer: list[float]) -> Case:
    return y_true, np.tile(answer, (len(y_true), 1))


@pytest.mark.parametrize("k", [2, 9])
def test_a_network_that_learned(k):
    result = compare_with_chance(Predictions(table_of(random_case(300, k, seed=0, signal=3.0))))
    assert result.verdict == "learned"
    assert f"{100 / k:.1f} % is chance" in result.reason


@pytest.mark.parametrize("answer", [[0.25] * 4, [0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])
@pytest.mark.parametrize("shares", [(0.25,) * 4, (0.7, 0.1, 0.1, 0.1)])
def test_a_constant_answer_is_at_chance(answer, shares):
    assert verdict(constant(imbalanced(500, shares, seed=0), answer)) == "at_chance"


def test_the_reason_names_the_one_answer_and_its_share():
    result = compare_with_chance(
        Predictions(table_of(constant(np.array([0, 0, 0, 1]), [0.1, 0.9])))
    )
    assert (
        result.reason
        == "100.0 % of the training images are predicted as class_1; 25.0 % truly are."
    )


@pytest.mark.parametrize(("other_answers", "expected"), [(8, "at_chance"), (30, "learned")])
def test_nearly_always_the_same_answer_is_at_chance(other_answers, expected):
    """Even if its probabilities know better, as they do here: decisions are what it is for."""
    y_true = np.arange(1000) % 2
    y_score = np.where(y_true[:, None] == 1, [0.55, 0.45], [0.95, 0.05])
    y_score[1 : 2 * other_answers : 2] = [0.2, 0.8]
    assert verdict((y_true, y_score)) == expected


def test_a_true_class_that_common_is_no_collapse():
    y_true = np.zeros(1000, np.int64)
    y_true[:5] = 1
    y_score = np.tile([0.999, 0.001], (1000, 1))
    y_score[:5] = [0.1, 0.9]
    assert verdict((y_true, y_score)) == "learned"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shares", [(0.25,) * 4, (0.7, 0.1, 0.1, 0.1)])
def test_answers_that_do_not_depend_on_the_image_are_at_chance(shares, seed):
    y_true = imbalanced(2000, shares, seed)
    noise = np.random.default_rng(seed + 100).normal(size=(2000, 4))
    assert verdict((y_true, softmax(noise))) == "at_chance"


def test_learning_the_class_shares_alone_is_at_chance():
    y_true = imbalanced(2000, (0.5, 0.3, 0.2), seed=0)
    noise = np.random.default_rng(1).normal(size=(2000, 3))
    shares = softmax(np.log([0.5, 0.3, 0.2]) + 0.5 * noise)
    result = compare_with_chance(Predictions(table_of((y_true, shares))))
    assert result.verdict == "at_chance"
    assert "for every image" in result.reason


def decided_by_coin(y_true: np.ndarray) -> Case:
    """Three classes; a coin decides between the first two, yet truth is the likelier runner-up."""
    y_score = np.full((len(y_true), 3), 0.25)
    rows = np.arange(len(y_true))
    y_score[rows, y_true] = 0.35
    top = np.random.default_rng(0).integers(2, size=len(y_true))
    y_score[rows, top] = 0
    y_score[rows, top] = 1 - y_score.sum(axis=1)  # 0.4, or 0.5 where the coin is right
    return y_true, y_score


def test_probabilities_that_know_more_than_the_decisions_are_learned():
    assert verdict(decided_by_coin(imbalanced(3000, (1 / 3,) * 3, seed=0))) == "learned"


def test_training_on_balanced_classes_is_not_taken_for_chance():
    """It knows a uniform prior, so on the images' own its log loss is beyond their entropy."""
    y_true, y_score = decided_by_coin(imbalanced(3000, (0.9, 0.05, 0.05), seed=0))
    loss = -np.log(y_score[np.arange(3000), y_true]).mean()
    assert loss > -(0.9 * np.log(0.9) + 0.1 * np.log(0.05))
    assert verdict((y_true, y_score)) == "learned"


def test_training_on_the_images_as_they_are_is_not_taken_for_chance():
    """It knows the images' prior, so with classes weighted equally it is worse than uniform."""
    y_true = imbalanced(3000, (0.8, 0.1, 0.1), seed=0)
    y_score = np.where(y_true[:, None] == 0, [0.84, 0.08, 0.08], [0.64, 0.18, 0.18])
    y_score[np.flatnonzero(y_true == 0)[:60]] = [0.3, 0.4, 0.3]  # not one answer, nor a good one
    assert verdict((y_true, y_score)) == "learned"


def test_far_too_sure_but_often_right_is_learned():
    y_true, y_score = random_case(600, 4, seed=0, signal=1.0)
    sure = softmax(20 * np.log(y_score))
    assert -np.log(np.maximum(sure[np.arange(600), y_true], 1e-7)).mean() > np.log(4)
    assert verdict((y_true, sure)) == "learned"


def test_one_training_class_leaves_nothing_to_learn():
    result = compare_with_chance(
        Predictions(table_of(constant(np.zeros(10, np.int64), [0.9, 0.1])))
    )
    assert result.verdict == "at_chance"
    assert result.reason == "every training image is class_0: there are no classes to distinguish."


def test_only_training_rows_are_judged():
    with pytest.raises(ValueError, match="Expected a predictions table with training rows"):
        compare_with_chance(Predictions(table_of(random_case(10, 2, seed=0), "test")))
