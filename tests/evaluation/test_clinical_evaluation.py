"""A predictions table as calibration, operating point and subgroups, and how they are kept."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.clinical_evaluation import (
    FEW_LESIONS,
    apply_decision_rule,
    evaluate_clinically,
    measure_subgroups,
    split_into_subgroups,
)
from melanoma_lab.evaluation.decision_rule import DecisionRule, OperatingPoint
from melanoma_lab.evaluation.predictions import Predictions
from tests.support.evaluation_cases import random_case, softmax, split_arrays, table_of

pytestmark = pytest.mark.unit

SLUGS = ("benign", "melanoma", "nevus")


def table(n: int = 200, splits=("train", "val", "test"), sharpness: float = 3) -> pd.DataFrame:
    """Two images a lesion; the network is too sure of itself."""
    parts = []
    for i, split in enumerate(splits):
        y_true, y_score = random_case(n, 3, seed=i)
        y_true = np.repeat(y_true[::2], 2)[:n]
        y_score = softmax(sharpness * (np.log(y_score) + np.eye(3)[y_true]))
        part = table_of((y_true, y_score), split, SLUGS)
        parts.append(part.assign(group=[f"{split}/{k // 2}" for k in range(n)]))
    return pd.concat(parts, ignore_index=True)


def manifest_of(found: pd.DataFrame, **columns) -> pd.DataFrame:
    return pd.DataFrame({"image_id": found["image_id"]} | columns).sample(frac=1, random_state=0)


def test_what_a_run_shows():
    found = table()
    judgement = evaluate_clinically(Predictions(found), "melanoma", sensitivity=0.9)
    shown = judgement.metrics()
    assert set(shown) == {
        "temperature",
        "operating_point_threshold",
        *(f"{s}/calibrated_{m}" for s in ("val", "test") for m in ("log_loss", "brier", "ece")),
        *(
            f"{split}/operating_point_{rate}"
            for split in ("val", "test")
            for rate in ("sensitivity", "specificity")
        ),
    }
    assert shown["temperature"] > 1.5
    for split in ("val", "test"):
        y_true, y_score = split_arrays(found, split)
        calibrated = softmax(np.log(y_score) / shown["temperature"])
        assert shown[f"{split}/calibrated_log_loss"] == pytest.approx(
            metrics.log_loss(y_true, calibrated)
        )
        assert shown[f"{split}/calibrated_log_loss"] < metrics.log_loss(y_true, y_score)
        reached = calibrated[:, 1] >= shown["operating_point_threshold"] - 1e-12
        assert shown[f"{split}/operating_point_sensitivity"] == reached[y_true == 1].mean()
        assert shown[f"{split}/operating_point_specificity"] == (~reached)[y_true != 1].mean()
    assert shown["val/operating_point_sensitivity"] >= 0.9
    assert (
        evaluate_clinically(Predictions(found), "melanoma", sensitivity=0.5).metrics()[
            "test/operating_point_specificity"
        ]
        > (shown["test/operating_point_specificity"])
    )


def test_nothing_is_chosen_on_test():
    found = table()
    other = found.copy()
    test = other["split"] == "test"
    other.loc[test, "y_true"] = other.loc[test, "y_true"].to_numpy()[::-1]
    one, two = (
        evaluate_clinically(Predictions(each), "melanoma", sensitivity=0.9)
        for each in (found, other)
    )
    assert one.temperature == two.temperature
    assert one.point.threshold == two.point.threshold
    assert one.point.rates["val"] == two.point.rates["val"]
    assert one.point.rates["test"] != two.point.rates["test"]


def test_a_run_that_left_test_alone_is_judged_by_val():
    found = table(splits=("train", "val"))
    manifest = manifest_of(table(), sex=["m", "f"] * 300)
    judgement = evaluate_clinically(
        Predictions(found), "melanoma", sensitivity=0.9, manifest=manifest
    )
    assert not [name for name in judgement.metrics() if name.startswith("test/")]
    assert set(judgement.subgroups["split"]) == {"val"}


def test_without_a_melanoma_class_there_is_no_operating_point(tmp_path):
    found = table()
    judgement = evaluate_clinically(
        Predictions(found), None, sensitivity=0.9, manifest=manifest_of(found, sex=["m", "f"] * 300)
    )
    assert not [name for name in judgement.metrics() if "operating" in name]
    judgement.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.json", "subgroups.csv"}
    assert judgement.subgroups["sensitivity"].isna().all()
    assert judgement.subgroups["balanced_accuracy"].notna().all()
    with pytest.raises(ValueError, match="Expected melanoma to be None or one of"):
        evaluate_clinically(Predictions(found), "mole", sensitivity=0.9)


def test_what_is_kept_can_be_applied_to_the_models_probabilities(tmp_path):
    """As somebody would who has the two files and the model."""
    found = table()
    judgement = evaluate_clinically(Predictions(found), "melanoma", sensitivity=0.9)
    judgement.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "calibration.json",
        "operating_points.json",
    }
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    (point,) = json.loads((tmp_path / "operating_points.json").read_text())
    y_true, y_score = split_arrays(found, "test")
    calibrated = softmax(np.log(y_score) / calibration["temperature"])
    called = calibrated[:, SLUGS.index(point["class"])] >= point["threshold"]
    test = point["test"]
    assert called[y_true == 1].mean() == test["sensitivity"]["value"]
    assert test["sensitivity"]["low"] < test["sensitivity"]["value"] < test["sensitivity"]["high"]
    assert (test["n_images"], test["n_lesions"]) == (200, 100)
    assert test["positive_images"] == 2 * test["positive_lesions"] == (y_true == 1).sum()
    assert point["target_sensitivity"] == 0.9
    assert calibration["fitted_on"] == point["chosen_on"] == "val"
    assert calibration["n"] == 200
    assert calibration["why_not"] is None
    before, after = (calibration["test"]["log_loss"][key] for key in ("before", "after"))
    assert before == metrics.log_loss(y_true, y_score) > after


def test_what_is_undefined_is_null(tmp_path):
    found = table(splits=("train", "val"))
    found = found[(found["split"] == "train") | (found["y_true"] != "melanoma")]
    judgement = evaluate_clinically(Predictions(found), "melanoma", sensitivity=0.9)
    assert np.isnan(judgement.metrics()["operating_point_threshold"])
    judgement.write(tmp_path)
    (point,) = json.loads((tmp_path / "operating_points.json").read_text())
    assert point["threshold"] is None
    assert point["val"]["sensitivity"] == {"value": None, "low": None, "high": None}
    nothing = evaluate_clinically(
        Predictions(found[found["split"] == "train"]), "melanoma", sensitivity=0.9
    )
    assert nothing.metrics()["temperature"] == 1
    assert np.isnan(nothing.metrics()["val/calibrated_ece"])


def test_subgroups_are_measured_as_if_they_were_all_there_is():
    found = table()
    sex = np.where(np.arange(600) % 10 < 6, "female", "male")
    judgement = evaluate_clinically(
        Predictions(found), "melanoma", sensitivity=0.9, manifest=manifest_of(found, sex=sex)
    )
    rows = judgement.subgroups.set_index(["column", "value"])
    assert list(rows.index) == [("all", "all"), ("sex", "female"), ("sex", "male")]
    threshold = judgement.point.threshold
    for (_, value), row in rows.iterrows():
        chosen = (found["split"] == "test") & ((value == "all") | (sex == value))
        y_true, y_score = split_arrays(found[chosen], "test")
        reached = judgement.temperature.apply(y_score)[:, 1] >= threshold
        assert row["n_images"] == len(y_true)
        assert row["n_lesions"] == len(y_true) / 2
        assert row["n_melanoma_lesions"] == (y_true == 1).sum() / 2
        assert row["n_classes"] == 3
        assert row["accuracy"] == metrics.accuracy(y_true, y_score)
        assert row["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy(y_true, y_score))
        assert row["sensitivity"] == reached[y_true == 1].mean()
        assert row["specificity"] == (~reached)[y_true != 1].mean()
        for figure in ("balanced_accuracy", "accuracy", "sensitivity", "specificity"):
            assert row[f"{figure}_low"] < row[figure] < row[f"{figure}_high"]
    assert rows.loc["all", "accuracy_low"].item() > rows.loc[("sex", "male"), "accuracy_low"]


def test_small_subgroups_are_marked_and_shown_all_the_same():
    found = table()
    site = np.where(np.arange(600) % 200 < 2 * FEW_LESIONS - 2, "ear", "back")
    judgement = evaluate_clinically(
        Predictions(found), "melanoma", sensitivity=0.9, manifest=manifest_of(found, site=site)
    )
    rows = judgement.subgroups.set_index("value")
    assert rows["few"].to_dict() == {"all": False, "back": False, "ear": True}
    assert rows.loc["ear", "sensitivity_high"] - rows.loc["ear", "sensitivity_low"] > 0.2


@pytest.mark.parametrize(
    ("n", "melanomas", "few"), [(30, 10, False), (29, 10, True), (30, 9, True)]
)
def test_thirty_lesions_and_ten_melanomas_are_not_few(n, melanomas, few):
    y_true = np.repeat([1, 0, 2], [melanomas, n - melanomas, 30])
    found = table_of((y_true, np.full((len(y_true), 3), 1 / 3)), "test", SLUGS)
    score = np.zeros(len(y_true))
    manifest = manifest_of(found, site=np.repeat(["ear", "back"], [n, 30]))
    point = OperatingPoint("melanoma", target=0.9, threshold=0.5, rates={})
    rows = measure_subgroups(Predictions(found).split("test"), manifest, score, point).set_index(
        "value"
    )
    assert rows.loc["ear", ["n_lesions", "n_melanoma_lesions", "few"]].tolist() == [
        *(n, melanomas, few)
    ]


def test_ages_come_in_bands_and_the_unknown_last():
    ages = pd.Series([39.9, 40, 0, 85, np.nan, 59, 60], name="age")
    bands = {value: np.flatnonzero(chosen).tolist() for value, chosen in split_into_subgroups(ages)}
    assert bands == {
        "under 40": [0, 2],
        "40 to 59": [1, 5],
        "60 and over": [3, 6],
        "not known": [4],
    }
    assert list(bands) == ["under 40", "40 to 59", "60 and over", "not known"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["", "", ""], name="sex"),
        pd.Series(["f", "", "f"], name="sex"),
        pd.Series([np.nan, np.nan], name="source"),
        pd.Series([50.0, 55.0, np.nan], name="age"),
        pd.Series([np.nan, np.nan], name="age"),
    ],
)
def test_what_divides_nobody_gives_no_subgroups(column):
    assert not list(split_into_subgroups(column))


def test_a_manifest_read_back_from_its_file_says_the_same(tmp_path):
    found = table()
    manifest = manifest_of(
        found,
        age=np.resize([30.0, 50, np.nan, 70], 600),
        sex=np.resize(["m", "", "f"], 600),
        source="",
    )
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    again = pd.read_csv(tmp_path / "manifest.csv")
    one, two = (
        evaluate_clinically(
            Predictions(found), "melanoma", sensitivity=0.9, manifest=each
        ).subgroups
        for each in (manifest, again)
    )
    pd.testing.assert_frame_equal(one, two)
    assert set(one["column"]) == {"all", "age", "sex"}


def test_ten_thousand_images_take_well_under_a_second():
    found = table(5000)
    manifest = manifest_of(
        found,
        age=np.resize(np.arange(20.0, 90), 15000),
        sex=np.resize(["m", "f"], 15000),
        site=np.resize([f"site {i}" for i in range(15)], 15000),
    )
    begun = time.process_time()
    judgement = evaluate_clinically(
        Predictions(found), "melanoma", sensitivity=0.9, manifest=manifest
    )
    assert time.process_time() - begun < 1
    assert len(judgement.subgroups) == 1 + 3 + 2 + 15


def test_what_was_chosen_elsewhere_is_measured_here():
    elsewhere = evaluate_clinically(Predictions(table(sharpness=2)), "melanoma", sensitivity=0.8)
    here = table(splits=("test",), sharpness=4)
    found = apply_decision_rule(Predictions(here), elsewhere.advice())
    shown = found.metrics()
    assert shown["temperature"] == elsewhere.temperature.value
    assert shown["operating_point_threshold"] == elsewhere.point.threshold
    assert set(found.calibrated) == set(found.point.rates) == {"test"}
    y_true, y_score = split_arrays(here, "test")
    calibrated = softmax(np.log(y_score) / elsewhere.temperature.value)
    reached = calibrated[:, 1] >= elsewhere.point.threshold - 1e-12
    assert shown["test/operating_point_sensitivity"] == reached[y_true == 1].mean()
    assert apply_decision_rule(Predictions(here), DecisionRule(elsewhere.temperature)).point is None
    with pytest.raises(ValueError, match="Expected advice of one of"):
        apply_decision_rule(
            Predictions(here), DecisionRule(elsewhere.temperature, "scar", 0.5, 0.9)
        )
