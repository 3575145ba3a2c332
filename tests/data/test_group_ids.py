"""Ids of lesions and patients: one spelling each, and lesions within patients."""

import pandas as pd
import pytest

from melanoma_lab.data.listing import normalise_group_ids

pytestmark = pytest.mark.unit


def table(lesions, patients=""):
    return pd.DataFrame({"lesion": list(lesions), "patient": patients}, dtype=object)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *[("7", "7.0"), ("7", "0007"), ("IL_7", "il_7"), ("P7", "P7\u200b"), ("P 7", "P\xa07")],
        *[("Mu\u0308ller", "M\xfcller"), ("IL_0010", "IL_10"), ("P 7", "p7")],
    ],
)
def test_two_spellings_of_one_id_are_one(first, second):
    found, notes = normalise_group_ids(table([first, second, "other"]))
    assert list(found["lesion"]) == [first, first, "other"]
    assert notes == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [("1", "10"), ("0", "00a"), ("1.5", "1"), ("a", "b"), ("1007", "17"), ("P100", "P10")],
)
def test_two_ids_are_two(first, second):
    assert list(normalise_group_ids(table([first, second]))[0]["lesion"]) == [first, second]


@pytest.mark.parametrize("word", ["", "NA", "n.a.", "Unknown", "-", "?", "nan", "None"])
def test_words_for_nothing_are_no_id(word):
    assert list(normalise_group_ids(table(["1", word, word]))[0]["lesion"]) == ["1", "", ""]


def test_lesions_that_are_numbered_within_patients_are_told_apart():
    found, (note,) = normalise_group_ids(table("1212x", ["P1", "P1", "P2", "P2", ""]))
    assert list(found["lesion"]) == ["P1/1", "P1/2", "P2/1", "P2/2", "x"]
    assert "restart for each" in note


def test_a_lesion_of_two_patients_joins_them():
    patients = ["P1", "P2", "P3", "P4", "P5"]
    found, notes = normalise_group_ids(table("11234", patients))
    assert list(found["lesion"]) == list("11234")
    assert notes == ()


def test_half_of_the_lesions_with_several_patients_are_not_most():
    found, notes = normalise_group_ids(table("112", ["P1", "P2", "P3"]))
    assert list(found["lesion"]) == list("112")
    assert notes == ()
