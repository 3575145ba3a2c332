from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.decision_rule import Temperature
from tests.support.evaluation_cases import random_case, split_arrays, table_of

pytestmark = pytest.mark.unit

SLUGS = ("melanoma", "nevus", "none")


def read(path: Path) -> pd.DataFrame:
    return predictions.Predictions.read(path).table


def small_table() -> pd.DataFrame:
    return small_predictions().table


def small_predictions() -> predictions.Predictions:
    return predictions.build_predictions(
        image_ids=["Train/melanoma/a.jpg", "Train/nevus/b.jpg", "c(1).jpg"],
        groups=["7", "8", "8"],
        splits=["train", "val", "test"],
        labels=np.array([0, 1, 2]),
        probabilities=np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25]]),
        slugs=SLUGS,
    )


def test_build_names_the_columns_as_the_design_does():
    table = small_table()
    assert list(table.columns) == [
        "image_id",
        "group",
        "split",
        "y_true",
        "prob/melanoma",
        "prob/nevus",
        "prob/none",
    ]
    assert table["y_true"].tolist() == list(SLUGS)
    assert small_predictions().slugs == SLUGS
    assert (table.dtypes.iloc[4:] == np.float32).all()


def test_build_keeps_group_numbers_as_strings():
    table = predictions.build_predictions(
        image_ids=["a", "b"],
        groups=np.array([3, 12]),
        splits=["train", "train"],
        labels=np.array([0, 1]),
        probabilities=np.full((2, 2), 0.5, np.float32),
        slugs=["x", "y"],
    ).table
    assert table["group"].tolist() == ["3", "12"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["1"]}, "Received 1 groups"),
        ({"splits": ["train"] * 4}, "4 splits"),
        ({"labels": np.array([0])}, r"labels of shape \(1,\)"),
        ({"labels": np.array([0, 2])}, "Expected labels from 0 to 1. Received 2"),
        ({"labels": np.array([0, -1])}, "Received -1"),
        ({"probabilities": np.full((2, 3), 1 / 3)}, r"probabilities of shape \(2, 3\)"),
        ({"probabilities": np.full((2, 2), np.nan)}, "finite"),
    ],
)
def test_build_refuses_what_does_not_fit(change, message):
    arguments = {
        "image_ids": ["a", "b"],
        "groups": ["1", "2"],
        "splits": ["train", "train"],
        "labels": np.array([0, 1]),
        "probabilities": np.full((2, 2), 0.5),
        "slugs": ["x", "y"],
    }
    with pytest.raises(ValueError, match=message):
        predictions.build_predictions(**(arguments | change))


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, "image_id", "Train/melanoma/a.jpg", "each image_id once"),
        (0, "group", None, "a value in each"),
        (0, "split", "holdout", "split to be one of"),
        (2, "y_true", "naevus", r"y_true to be one of .*Received .*c\(1\)\.jpg"),
        (0, "prob/nevus", np.nan, "finite probabilities between 0 and 1"),
        (0, "prob/nevus", np.inf, "finite probabilities between 0 and 1"),
        (1, "prob/melanoma", -0.0005, "finite probabilities between 0 and 1"),
        (1, "prob/nevus", 1.0005, "finite probabilities between 0 and 1"),
        (2, "prob/nevus", 0.502, "sum to one"),
    ],
)
def test_check_refuses_a_wrong_cell_and_says_where(row, column, value, message):
    table = small_table()
    table.loc[row, column] = value
    with pytest.raises(ValueError, match=message) as caught:
        predictions.Predictions(table)
    assert table.loc[row, "image_id"] in str(caught.value)
    assert "1 of 3 rows" in str(caught.value)


def test_check_allows_the_rounding_of_a_low_precision_softmax():
    table = small_table()
    table.loc[2, "prob/nevus"] = 0.5009
    predictions.Predictions(table)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.drop(columns="group"),
        lambda table: table.assign(extra=1.0),
        lambda table: table[[*table.columns[::-1]]],
        lambda table: table.drop(columns=["prob/nevus", "prob/none"]),
        lambda table: pd.concat([table, table["prob/nevus"]], axis="columns"),
    ],
    ids=["missing", "unknown", "out of order", "one class", "twice"],
)
def test_check_refuses_other_columns(spoil):
    with pytest.raises(ValueError, match="Expected the columns image_id, group, split, y_true"):
        predictions.Predictions(spoil(small_table()))


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 5), sharpness=st.sampled_from([1, 40]))
def test_csv_gives_back_every_bit(tmp_path_factory, seed, k, sharpness):
    # Sharp predictions reach down to denormal numbers and exact zeros.
    y_true, y_score = random_case(20, k, seed)
    sharp = y_score**sharpness
    table = table_of((y_true, (sharp / sharp.sum(axis=1, keepdims=True)).astype(np.float32)))
    path = tmp_path_factory.mktemp("csv") / "predictions.csv"
    predictions.Predictions(table).write(path)
    pd.testing.assert_frame_equal(read(path), table, check_exact=True)


def test_csv_keeps_names_that_look_like_something_else(tmp_path: Path):
    found = predictions.build_predictions(
        image_ids=['a,"b".jpg', "NA", "007", " é "],
        groups=["1e3", "", "0x1", "null"],
        splits=["train"] * 4,
        labels=np.array([0, 1, 2, 0]),
        probabilities=np.eye(3)[[0, 1, 2, 0]],
        slugs=["nan", "true", "1"],
    )
    found.write(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "p.csv"), found.table)


def test_csv_keeps_an_empty_table(tmp_path: Path):
    table = table_of(random_case(0, 3, seed=0))
    predictions.Predictions(table).write(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "p.csv"), table)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "image_id,group,split,y_true,prob/x\na,b,c,x,?\n"]
)
def test_read_csv_names_a_file_that_is_none(tmp_path: Path, text):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"p\.csv is not a predictions table"):
        read(path)


def test_arrays_by_hand():
    y_true, y_score = split_arrays(small_table(), "test")
    assert y_true.dtype == np.int64
    assert y_score.dtype == np.float64
    np.testing.assert_array_equal(y_true, [2])
    np.testing.assert_array_equal(y_score, [[0.25, 0.5, 0.25]])


def test_classes_that_are_not_in_alphabetical_order_keep_theirs():
    table = table_of((np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])), slugs=("nevus", "bcc"))
    y_true, y_score = split_arrays(table, "train")
    np.testing.assert_array_equal(y_true, [0, 1])
    np.testing.assert_array_equal(y_score.argmax(axis=1), [0, 1])


def interleaved_predictions() -> predictions.Predictions:
    """Rows of three splits by turns; groups that lie in two of them."""
    y_true, y_score = random_case(12, 3, seed=0)
    return predictions.build_predictions(
        image_ids=[f"{i}.jpg" for i in range(12)],
        groups=[9, 9, 3, 2, 9, 1, 3, 1, 2, 9, 1, 3],
        splits=["val", "train", "test"] * 4,
        labels=y_true,
        probabilities=y_score,
        slugs=SLUGS,
    )


def test_a_split_has_its_rows_in_the_order_of_the_table():
    found = interleaved_predictions()
    assert found.slugs == SLUGS
    assert found.splits == ("train", "val", "test")
    for name in found.splits:
        split = found.split(name)
        rows = found.table[found.table["split"] == name]
        assert (split.name, split.slugs, len(split)) == (name, SLUGS, 4)
        assert split.image_ids.tolist() == rows["image_id"].tolist()
        assert [SLUGS[label] for label in split.y_true] == rows["y_true"].tolist()
        assert split.group_names.tolist() == rows["group"].tolist()
        np.testing.assert_array_equal(split.y_score, rows.iloc[:, 4:].to_numpy(np.float64))
        np.testing.assert_array_equal(split.predicted, split.y_score.argmax(axis=1))
        np.testing.assert_array_equal(split.correct, split.predicted == split.y_true)
        there = set(rows["y_true"])
        assert split.absent_classes == tuple(slug for slug in SLUGS if slug not in there)


def test_groups_are_numbered_in_the_order_in_which_a_split_shows_them():
    found = interleaved_predictions()
    groups = {name: found.split(name) for name in ("train", "val", "test")}
    assert groups["val"].group_names.tolist() == ["9", "2", "3", "9"]
    assert groups["val"].groups.tolist() == [0, 1, 2, 0]
    assert groups["train"].group_names.tolist() == ["9", "9", "1", "1"]
    assert groups["train"].groups.tolist() == [0, 0, 1, 1]
    assert groups["test"].groups.tolist() == [0, 1, 2, 0]
    assert {split.groups.dtype for split in groups.values()} == {np.dtype(np.int64)}


def test_a_split_is_made_once_and_nobody_can_change_it():
    found = interleaved_predictions()
    split = found.split("test")
    assert found.split("test") is split is found.evaluated
    for array in (split.image_ids, split.y_true, split.y_score, split.group_names, split.groups):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]


def test_one_class_against_the_rest():
    split = interleaved_predictions().split("train")
    positive, score = split.one_vs_rest("nevus")
    np.testing.assert_array_equal(positive, split.y_true == 1)
    np.testing.assert_array_equal(score, split.y_score[:, 1])


def test_calibrated_predictions_are_of_the_same_images():
    split = interleaved_predictions().split("test")
    temperature = Temperature(2.0, 100)
    calibrated = split.calibrate(temperature)
    np.testing.assert_array_equal(calibrated.y_score, temperature.apply(split.y_score))
    assert calibrated.y_true is split.y_true
    assert calibrated.groups is split.groups
    assert not np.allclose(calibrated.y_score, split.y_score)
    unfitted = split.calibrate(Temperature(1.0, 3, "too few"))
    np.testing.assert_array_equal(unfitted.y_score, split.y_score)


@pytest.mark.parametrize(
    ("given", "splits", "evaluated"),
    [
        (("test", "train", "val"), ("train", "val", "test"), "test"),
        (("val", "train"), ("train", "val"), "val"),
        (("train",), ("train",), "val"),
        (("test",), ("test",), "test"),
    ],
)
def test_predictions_are_evaluated_by_test_if_they_have_test_images(given, splits, evaluated):
    table = pd.concat([table_of(random_case(5, 4, seed=0), split) for split in given])
    found = predictions.Predictions(table)
    assert found.splits == splits
    assert found.evaluated_split == evaluated == found.evaluated.name
    assert len(found.evaluated) == (5 if evaluated in given else 0)


def test_an_empty_split_keeps_its_shapes():
    split = predictions.Predictions(table_of(random_case(5, 4, seed=0), "train")).split("val")
    assert (split.y_true.shape, split.y_score.shape, split.groups.shape) == ((0,), (0, 4), (0,))
    assert split.correct.shape == split.predicted.shape == (0,)
    assert split.absent_classes == split.slugs


def test_absent_classes_come_in_class_order():
    def absent(y_true, *slugs):
        case = np.array(y_true), np.full((len(y_true), len(slugs)), 1 / len(slugs))
        return predictions.Predictions(table_of(case, "val", slugs)).split("val").absent_classes

    assert absent([0, 0, 0, 1, 1], "a", "b", "c") == ("c",)
    assert absent([2, 2], "z", "b", "c", "a") == ("z", "b", "a")
    assert absent([0, 1, 2], "a", "b", "c") == ()


def test_a_split_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"Expected split to be one of .* Received 'dev'"):
        interleaved_predictions().split("dev")


def test_a_class_is_one_of_the_table():
    found = interleaved_predictions()
    found.require_class(None)
    found.require_class("nevus")
    with pytest.raises(ValueError, match=r"Expected melanoma to be None or one of .*'mel'"):
        found.require_class("mel")


def test_a_file_gives_back_the_predictions(tmp_path: Path):
    found = interleaved_predictions()
    found.write(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "p.csv"), found.table, check_exact=True)
