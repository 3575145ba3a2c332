"""The mean of predictions, and what an image is to several runs."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.inference.ensembles.average import assign_splits, average_predictions
from tests.support.fake_studies import draw_table

pytestmark = pytest.mark.unit


def probabilities(table):
    return table.filter(like="prob/").to_numpy(np.float64)


def test_the_mean_is_exact():
    tables = [draw_table(1.0, seed=seed) for seed in range(3)]
    found = average_predictions([Predictions(table) for table in tables]).table
    expected = np.mean([probabilities(table) for table in tables], axis=0).astype(np.float32)
    np.testing.assert_array_equal(probabilities(found), expected)
    same = ["image_id", "group", "split", "y_true"]
    assert found[same].equals(tables[0][same])
    assert average_predictions([Predictions(tables[0])]).table.equals(tables[0])


def test_by_hand():
    first, second = draw_table(1.0, seed=0), draw_table(1.0, seed=1)
    columns = [name for name in first if name.startswith("prob/")]
    first[columns], second[columns] = np.float32([1, 0, 0, 0]), np.float32([0.25, 0.75, 0, 0])
    found = average_predictions([Predictions(first), Predictions(second)]).table
    assert set(map(tuple, probabilities(found))) == {(0.625, 0.375, 0, 0)}


def test_what_a_member_has_learned_from_is_for_training():
    splits = np.array(
        [
            ["train", "train", "val", "val", "test"],
            ["train", "val", "train", "val", "test"],
        ]
    )
    assert assign_splits(splits).tolist() == ["train", "train", "train", "val", "test"]
    assert assign_splits(splits[:1]).tolist() == splits[0].tolist()


def test_folds_whose_test_images_others_have_learned_from_are_refused():
    fold = np.arange(6) // 2
    splits = [np.where(fold == k, "test", "train") for k in range(3)]
    with pytest.raises(UserError, match=r"of 6 that .* 0 are test images of all.*split=kfold"):
        assign_splits(splits)


def test_members_that_share_some_test_images_only_are_refused():
    splits = [np.array(["test", "test", "train"]), np.array(["test", "val", "train"])]
    with pytest.raises(UserError, match=r"of 2 that .* 1 are test images of all"):
        assign_splits(splits)


def test_folds_that_leave_no_image_to_judge_by_are_refused():
    fold = np.arange(6) // 2
    splits = [np.where(fold == k, "val", "train") for k in range(3)]
    with pytest.raises(
        UserError, match=r"Every image .* split=cross_val and evaluation.test=false"
    ):
        assign_splits(splits)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_of_validation_leave_test_and_groups_as_they_are(k, seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 12, size=40)
    part = rng.integers(-1, k, size=12)[group]  # -1: test; else the fold that validates with it
    assume((part < 0).any())
    members = [np.where(part < 0, "test", np.where(part == i, "val", "train")) for i in range(k)]
    found = assign_splits(members)
    assert ((found == "test") == (part < 0)).all()
    assert set(found[part >= 0]) <= {"train"}  # of k >= 2 folds one has trained on it
    for each in np.unique(group):
        assert len(set(found[group == each])) == 1
