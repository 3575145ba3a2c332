"""Influences are the derivatives of the metrics they belong to, and add up over groups."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from melanoma_lab.evaluation import influence, metrics, predictions
from melanoma_lab.evaluation.metrics import SPLIT_METRICS, compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from tests.support.evaluation_cases import cases, random_case, table_of

pytestmark = pytest.mark.unit

PER_CLASS = {
    name: (getattr(influence, f"{name}_influence"), getattr(metrics, name))
    for name in ("sensitivity", "specificity", "auroc")
}
COPIES = 400


def numerical(metric, y_true, y_score, i):
    """The derivative, from many copies of all images and one more of image i."""
    rows = np.tile(np.arange(len(y_true)), COPIES)
    before = metric(y_true[rows], y_score[rows])
    rows = np.append(rows, i)
    return COPIES * (metric(y_true[rows], y_score[rows]) - before)


@pytest.mark.parametrize("name", SPLIT_METRICS)
def test_an_influence_is_the_metrics_derivative(name):
    y_true, y_score = random_case(23, 4, seed=5)
    found = influence.INFLUENCES[name](y_true, y_score)
    expected = [numerical(SPLIT_METRICS[name], y_true, y_score, i) for i in range(23)]
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("name", PER_CLASS)
def test_an_influence_is_the_derivative_of_every_class(name):
    function, metric = PER_CLASS[name]
    y_true, y_score = random_case(19, 3, seed=2, grid=4)  # with ties
    expected = np.transpose([numerical(metric, y_true, y_score, i) for i in range(19)])
    np.testing.assert_allclose(
        function(y_true, y_score), expected, atol=0.01 * np.abs(expected).max()
    )


def test_every_metric_of_a_split_has_its_influences():
    assert influence.INFLUENCES.keys() == SPLIT_METRICS.keys()


@given(cases())
@settings(max_examples=40)
def test_influences_sum_to_zero_and_are_defined_where_the_metric_is(case):
    y_true, y_score = case
    for name, function in influence.INFLUENCES.items():
        found = function(y_true, y_score)
        assert found.shape == y_true.shape
        assert np.isnan(found).any() == np.isnan(SPLIT_METRICS[name](y_true, y_score)), name
        if not np.isnan(found).any():
            assert abs(found.sum()) < 1e-9
    for function, metric in PER_CLASS.values():
        found = function(y_true, y_score)
        np.testing.assert_array_equal(
            np.isnan(found).any(axis=1), np.isnan(metric(y_true, y_score))
        )


def test_the_jackknife_of_a_share_by_hand():
    # Four melanomas of four lesions, three found: leaving out a found one gives 2/3, which is 1/12
    # less, leaving out the missed one gives 1, which is 1/4 more.
    y_true = np.array([0, 0, 0, 0, 1, 1])
    y_score = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    found = predictions.build_predictions(
        image_ids=list("abcdef"),
        groups=list("abcdef"),
        splits=["test"] * 6,
        labels=y_true,
        probabilities=y_score,
        slugs=("melanoma", "nevus"),
    )
    found = influence.estimate_run(found, "melanoma")["melanoma_sensitivity"]
    assert found.value == 0.75
    np.testing.assert_allclose(found.influence, [1 / 12, 1 / 12, 1 / 12, -1 / 4, 0, 0])


def table_with_groups(groups, seed=0, n=40):
    y_true, y_score = random_case(n, 3, seed)
    table = pd.concat([table_of((y_true, y_score), s) for s in ("train", "val", "test")])
    return table.assign(group=np.tile(groups, 3)).reset_index(drop=True)


def test_an_estimate_has_the_runs_own_metrics():
    table = table_with_groups([f"g{i // 2}" for i in range(40)])
    values = compute_run_metrics(Predictions(table), "class_1")
    estimates = influence.estimate_run(Predictions(table), "class_1")
    assert set(estimates) == {
        *SPLIT_METRICS,
        "class_1_sensitivity",
        "class_1_specificity",
        "class_1_auroc",
        *(f"sensitivity/class_{k}" for k in range(3)),
        "generalisation_gap",
    }
    for metric, estimate in estimates.items():
        key = metric if metric == "generalisation_gap" else f"test/{metric}"
        assert estimate.value == values[key]
        assert len(estimate.groups) == len(estimate.influence) == 20


def test_images_of_a_group_count_as_one():
    """Every image three times in its own group says no more than every image once."""
    once = table_with_groups([f"g{i}" for i in range(40)])
    thrice = pd.concat([once] * 3, ignore_index=True)
    thrice["image_id"] = [f"{name}-{i}" for i, name in enumerate(thrice["image_id"])]
    first, second = (influence.estimate_run(Predictions(table), None) for table in (once, thrice))
    for metric in first:
        np.testing.assert_allclose(first[metric].influence, second[metric].influence, atol=1e-12)


def test_no_images_to_evaluate_by_make_every_metric_undefined():
    table = table_with_groups([f"g{i}" for i in range(40)])
    estimates = influence.estimate_run(Predictions(table[table["split"] == "train"]), "class_0")
    assert all(np.isnan(estimate.value) for estimate in estimates.values())


def test_without_test_images_a_run_is_estimated_by_val():
    table = table_with_groups([f"g{i}" for i in range(40)])
    without = Predictions(table[table["split"] != "test"])
    estimates = influence.estimate_run(without, "class_0")
    values = compute_run_metrics(without, "class_0")
    gap = estimates.pop("generalisation_gap")
    assert np.isfinite(gap.value)
    assert gap.value == values["generalisation_gap"]
    assert all(np.isfinite(estimate.value) for estimate in estimates.values())
    assert estimates["macro_auroc"].value == values["val/macro_auroc"]


def test_a_class_without_test_images_is_undefined_and_the_rest_is_not():
    table = table_with_groups([f"g{i}" for i in range(40)])
    rest = table[(table["split"] != "test") | (table["y_true"] != "class_2")]
    estimates = influence.estimate_run(Predictions(rest), None)
    assert np.isnan(estimates["sensitivity/class_2"].value)
    assert np.isnan(estimates["sensitivity/class_2"].influence).all()
    assert np.isfinite(estimates["balanced_accuracy"].influence).all()
