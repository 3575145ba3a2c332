"""Columns that name lesions, patients, ages and the like are found, whatever they are called."""

from pathlib import Path

import pytest

from melanoma_lab.data.columns import check_grouping, describe_columns, find_columns, grouping_of
from melanoma_lab.data.tables import Table
from melanoma_lab.errors import UserError

KNOWN = ("lesion", "patient", "source", "diagnosis", "split", "age", "sex", "site")
ANYTHING = dict.fromkeys(KNOWN)


def table(**columns):
    """A table of 12 rows; a column is given by its values, repeated as often as needed."""
    names = tuple(name.replace("__", " ") for name in columns)
    rows = [[str(values[i % len(values)]) for values in columns.values()] for i in range(12)]
    return Table(Path("labels.csv"), names, rows, list(range(2, 14)))


def found(columns, **chosen):
    return find_columns(table(image_id=range(12), label="ab", **columns), ANYTHING | chosen, [])


SIX = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *[(name, "lesion") for name in ("lesion", "lesion_id", "LESION_ID", "Lesion ID")],
        *[(name, "lesion") for name in ("lesionId", "LesionID", "lesionid", "lesion_num")],
        *[(name, "lesion") for name in ("lesion-no", "id_lesion", "lesion_id_2", "Lesion.Number")],
        *[(name, "lesion") for name in ("patient_lesion_id", "lesion_uuid", "lesion_index")],
        *[(name, "patient") for name in ("patient", "patient_id", "PatientID", "PATIENT_NUM")],
        *[(name, "patient") for name in ("case", "case_id", "Case No", "caseid", "subject")],
        *[(name, "patient") for name in ("subject_id", "Subj_ID", "participant_id", "person_key")],
        *[(name, None) for name in ("lesions", "n_lesions", "num_lesions", "lesion_size_mm")],
        *[(name, None) for name in ("lesion_type", "patient_age", "case_type", "image_id", "id")],
        *[(name, None) for name in ("", "_", "group", "num", "staircase", "diagnosis", "läsion")],
    ],
)
def test_what_a_name_says(name, what):
    assert grouping_of(name) == what


def test_lesion_and_patient_are_both_used():
    assert found({"lesion_id": SIX, "PatientID": SIX}) == {
        "lesion": "lesion_id",
        "patient": "PatientID",
    }


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *[("age", "age"), ("age_approx", "age"), ("Patient Age", "age"), ("AGE_YEARS", "age")],
        *[("sex", "sex"), ("Gender", "sex"), ("patient_sex", "sex")],
        *[("site", "site"), ("localization", "site"), ("anatom_site_general", "site")],
        *[("anatom_site_general_challenge", "site"), ("region", "site"), ("Body Part", "site")],
        *[("source", "source"), ("attribution", "source"), ("Hospital", "source")],
    ],
)
def test_other_columns_are_recognised_by_their_names(name, what):
    assert found({name: "xy"}) == {what: name}


def test_of_several_the_surest_name_counts():
    assert found({"region": "xy", "site": "xy", "attribution": "xy", "source": "xy"}) == {
        "site": "site",
        "source": "source",
    }


def test_a_column_is_one_thing():
    columns = {"site": "xy", "localization": "xy"}
    assert found(columns, source="site") == {"source": "site", "site": "localization"}
    taken = find_columns(table(case_id=range(12), label="ab"), ANYTHING, ["case_id"])
    assert taken == {}


def test_without_a_column_on_purpose():
    columns = {"lesion_id": SIX, "patient_id": SIX, "age": [40]}
    assert found(columns, lesion="none") == {"age": "age"}
    assert found(columns, lesion="none", patient="patient_id") == {
        "patient": "patient_id",
        "age": "age",
    }
    assert found(columns, patient="none", age="none") == {"lesion": "lesion_id"}


def refused(columns, **chosen):
    with pytest.raises(UserError) as caught:
        found(columns, **chosen)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["group", "exam_id", "visit", "lesion_id_x", "isic_lesion_id", "mole", "patient_name", "PID"],
)
def test_a_column_that_looks_like_a_grouping_is_refused_with_the_line_to_type(name):
    text = refused({name: SIX})
    assert f"column {name} looks as if it said which images belong together" in text
    assert "6 different values in 12 rows" in text
    assert f"dataset.columns.patient={name}" in text
    assert found({name: SIX}, patient=name) == {"patient": name}
    assert found({name: SIX}, patient="none") == {}
    assert found({name: SIX}, lesion="none") == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("group", ["control", "case"]),  # a category
        ("nevus", [0, 1]),  # one of several columns of a class each
        ("exam_id", range(12)),  # no image belongs to another
        ("exam_id", [""]),
        ("diameter_1", SIX),
        ("lesion_size_mm", SIX),
        ("fold", SIX),
    ],
)
def test_a_column_that_cannot_be_a_grouping_is_left_alone(name, values):
    assert found({name: values}) == {}


def test_several_that_could_be_meant_are_refused():
    text = refused({"patient_id": SIX, "case": SIX})
    assert "patient_id and case could each say which images belong together" in text
    assert "dataset.columns.patient=patient_id or dataset.columns.patient=case" in text
    assert found({"patient_id": SIX, "case": SIX}, patient="case") == {"patient": "case"}


def test_a_table_of_fixed_format_is_mended_by_renaming():
    mole = table(image_id=range(12), mole=SIX)
    with pytest.raises(UserError, match=r"Rename it to patient_id to keep them .* or remove it"):
        find_columns(mole, ANYTHING, ["image_id"], configurable=False)


def test_what_is_used_is_said_in_one_line():
    known = table(lesion_id=SIX, patient_id=SIX, age_approx=[40], sex="mf")
    line = describe_columns(known, find_columns(known, ANYTHING, []))
    assert line == "labels.csv: groups by lesion_id and patient_id; age from age_approx; sex."
    line = describe_columns(known, find_columns(known, ANYTHING | {"lesion": "none"}, []))
    assert "lesion_id and patient_id not used, as dataset.columns says" in line
    assert describe_columns(table(image_id=range(12)), {}) == ""


def test_kinds_of_lesions_are_no_ids():
    kinds = table(lesion=["melanoma", "nevus"], label="ab")
    with pytest.raises(UserError, match=r"lesion has 2 different values \(melanoma and nevus\)"):
        check_grouping(kinds, {"lesion": "lesion"}, kinds.values("label"))
    ids = table(lesion=SIX, label="ab")
    check_grouping(ids, {"lesion": "lesion"}, ids.values("label"))
