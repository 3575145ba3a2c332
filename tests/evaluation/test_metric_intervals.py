"""Every metric of a run has one interval method; where two wordings remain, they agree."""

import numpy as np
import pytest

from melanoma_lab.evaluation.confidence_intervals import average_proportions, estimate_proportion
from melanoma_lab.evaluation.metric_intervals import (
    CLASS_INTERVALS,
    INTERVALS,
    estimate_calibration,
    estimate_metrics,
)
from melanoma_lab.evaluation.metrics import CLASS_METRICS, SPLIT_METRICS
from tests.support.evaluation_cases import random_case, split_of

pytestmark = pytest.mark.unit


def drawn_split(n, k, seed, absent=False):
    y_true, y_score = random_case(n, k, seed)
    groups = np.random.default_rng(seed).integers(n // 2, size=n)
    return split_of(np.minimum(y_true, k - 1 - absent), y_score, groups)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("k", [3, 9])
def test_values_are_those_of_the_metrics(k, absent):
    split = drawn_split(90, k, seed=k, absent=absent)
    arrays = split.y_true, split.y_score
    for name, estimate in INTERVALS.items():
        found = estimate(split)
        assert found.value == pytest.approx(SPLIT_METRICS[name](*arrays)), name
        assert found.low <= found.high, name
    for name, metric in CLASS_METRICS.items():
        for slug, value in zip(split.slugs, metric(*arrays), strict=True):
            assert CLASS_INTERVALS[name](split, slug).value == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("seed", range(20))
def test_balanced_accuracy_is_the_mean_sensitivity_of_the_present_classes_to_the_bit(seed):
    """As subgroups and external evaluations computed it before they asked the same function."""
    split = drawn_split(60, 5, seed, absent=seed % 2 == 1)
    parts = [
        estimate_proportion(split.correct[split.y_true == k], split.groups[split.y_true == k])
        for k in np.unique(split.y_true)
    ]
    assert INTERVALS["balanced_accuracy"](split) == average_proportions(parts)


def test_a_subgroup_keeps_the_numbers_of_its_groups():
    split = drawn_split(60, 3, seed=0)
    part = split.select(split.y_true != 1)
    assert len(part) == len(part.y_score) == (split.y_true != 1).sum()
    assert part.absent_classes == ("class_1",)
    np.testing.assert_array_equal(part.groups, split.groups[split.y_true != 1])
    np.testing.assert_array_equal(part.correct, split.correct[split.y_true != 1])
    known = INTERVALS["accuracy"](part)
    assert known == estimate_proportion(part.correct, part.groups)


def test_what_a_card_shows_is_of_the_table():
    split = drawn_split(60, 3, seed=1)
    shown = estimate_metrics(split, "class_2")
    assert list(shown) == [
        *("balanced_accuracy", "accuracy", "macro_auroc"),
        *("class_2_sensitivity", "class_2_specificity", "class_2_auroc"),
    ]
    assert list(estimate_metrics(split, None)) == list(shown)[:3]
    for name in ("sensitivity", "specificity", "auroc"):
        assert shown[f"class_2_{name}"] == CLASS_INTERVALS[name](split, "class_2")
    assert list(estimate_calibration(split)) == ["log_loss", "brier", "ece"]
    assert estimate_calibration(split)["ece"] == INTERVALS["ece"](split)


def test_no_images_have_no_intervals():
    split = split_of(np.zeros(0, np.int64), np.zeros((0, 3)))
    for estimate in INTERVALS.values():
        found = estimate(split)
        assert np.isnan([found.value, found.low, found.high]).all()
    for estimate in CLASS_INTERVALS.values():
        assert np.isnan(estimate(split, "class_0").value)
