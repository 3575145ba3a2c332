"""Which images of a run are shown."""

import numpy as np
import pytest

from melanoma_lab.evaluation.decision_rule import Temperature
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.decisions import (
    N_CLASSES,
    N_MISSED,
    N_MISTAKES,
    choose_mistakes,
    choose_surest_decisions,
    tabulate_decisions,
)
from tests.support.evaluation_cases import split_arrays
from tests.support.example_cases import SLUGS, table_of

pytestmark = pytest.mark.unit

WARM = Temperature(2.0, 90)


def tabulate(table):
    return tabulate_decisions(Predictions(table).evaluated, WARM)


@pytest.fixture(scope="module")
def found():
    return tabulate(table_of())


def test_a_row_for_every_image_of_the_judged_split_the_surest_first(found):
    table = table_of()
    judged = table[table["split"] == "test"]
    assert sorted(found["image_id"]) == sorted(judged["image_id"])
    assert found["probability"].is_monotonic_decreasing
    row = found.iloc[17]
    own = judged.set_index("image_id").loc[row["image_id"]]
    scores = np.array([own[f"prob/{slug}"] for slug in SLUGS]) ** 0.5  # the temperature is 2
    calibrated = dict(zip(SLUGS, scores / scores.sum(), strict=True))
    assert row["predicted"] == max(calibrated, key=calibrated.get)
    assert row["probability"] == pytest.approx(calibrated[row["predicted"]])
    assert row["true_probability"] == pytest.approx(calibrated[own["y_true"]])
    assert row["right"] == (row["predicted"] == own["y_true"])
    assert {slug: row[slug] for slug in SLUGS} == pytest.approx(calibrated)


def test_val_is_shown_where_test_was_left_alone():
    found = tabulate(table_of(splits=("train", "val")))
    assert all("/val-" in image_id for image_id in found["image_id"])


def test_equally_sure_ones_come_by_name():
    table = table_of()
    for slug in SLUGS:
        table[f"prob/{slug}"] = np.float32(1 / 3)
    assert list(tabulate(table)["image_id"]) == sorted(
        table.loc[table["split"] == "test", "image_id"]
    )


def test_of_each_class_the_surest_right_and_the_surest_wrong(found):
    chosen = choose_surest_decisions(found, SLUGS)
    assert [one.slug for one in chosen] == list(SLUGS)
    for one in chosen:
        own = found[found["y_true"] == one.slug]
        assert one.right["probability"] == own.loc[own["right"], "probability"].max()
        assert one.wrong["probability"] == own.loc[~own["right"], "probability"].max()
    right = found[found["right"] | (found["y_true"] != "nevus")]
    assert choose_surest_decisions(right, SLUGS)[1].wrong is None
    assert [
        one.slug for one in choose_surest_decisions(found[found["y_true"] != "nevus"], SLUGS)
    ] == [
        SLUGS[0],
        SLUGS[2],
    ]


def test_of_many_classes_the_largest_are_shown(found):
    many = [*(f"class_{i}" for i in range(N_CLASSES)), "last"]
    labels = np.repeat(many, [1, *[5] * N_CLASSES])
    table = found.iloc[: len(labels)].assign(y_true=labels)
    assert [one.slug for one in choose_surest_decisions(table, many)] == many[1:]


def test_missed_melanomas_are_apart_and_all_mistakes_are_counted(found):
    chosen = choose_mistakes(found, "melanoma")
    y_true, y_score = split_arrays(table_of(), "test")
    wrong = y_score.argmax(axis=1) != y_true
    assert chosen.n_missed == (wrong & (y_true == 0)).sum() > 0
    assert chosen.n_others == (wrong & (y_true != 0)).sum() > 0
    assert set(chosen.missed["y_true"]) == {"melanoma"}
    assert "melanoma" not in set(chosen.others["y_true"])
    assert not chosen.shown["right"].any()
    assert chosen.pairs["images"].sum() == wrong.sum()
    first = chosen.pairs.iloc[0]
    pair = (y_true == SLUGS.index(first["y_true"])) & (
        y_score.argmax(axis=1) == SLUGS.index(first["predicted"])
    )
    assert first["images"] == pair.sum() == chosen.pairs["images"].max()
    assert first["share"] == pair.sum() / (y_true == SLUGS.index(first["y_true"])).sum()
    assert first["groups"] <= first["images"]


def test_no_more_than_can_be_looked_at():
    found = tabulate(table_of(n=600))
    chosen = choose_mistakes(found, "melanoma")
    assert len(chosen.missed) == N_MISSED < chosen.n_missed
    assert len(chosen.shown) == N_MISTAKES
    assert (
        chosen.missed["probability"].min()
        >= found[(found["y_true"] == "melanoma") & ~found["right"]]["probability"]
        .nlargest(N_MISSED + 1)
        .min()
    )
    unnamed = choose_mistakes(found, None)
    assert (unnamed.n_missed, len(unnamed.missed)) == (0, 0)
    assert list(unnamed.others["image_id"]) == list(
        found.loc[~found["right"], "image_id"].head(N_MISTAKES)
    )
