"""Columns that name lesions, patients, ages and the like are found, whatever they are called."""

import shlex
from pathlib import Path

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.columns import (
    check_grouping_ids,
    describe_columns,
    detect_grouping,
    find_columns,
)
from melanoma_lab.data.tables import Table

pytestmark = pytest.mark.unit

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
        *[(name, "lesion") for name in ("patient_lesion_id", "Läsion", "IDLesion")],
        *[(name, "patient") for name in ("patient", "patient_id", "PatientID", "PATIENT_NUM")],
        *[(name, "patient") for name in ("case", "case_id", "Case No", "caseid", "subject")],
        *[(name, "patient") for name in ("subject_id", "Subj_ID", "participant_id", "person_key")],
        *[(name, None) for name in ("lesions", "n_lesions", "num_lesions", "lesion_size_mm")],
        *[(name, None) for name in ("lesion_type", "patient_age", "case_type", "image_id", "id")],
        *[(name, None) for name in ("", "_", "group", "num", "staircase", "diagnosis")],
    ],
)
def test_what_a_name_says(name, what):
    assert detect_grouping(name) == what


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


def test_of_two_names_that_differ_in_capitals_the_first_counts():
    assert found({"Age": "12", "age": "34"}) == {"age": "Age"}
    assert found({"age": "12", "Age": "34"}) == {"age": "age"}


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
    ("name", "what"),
    [
        *[(name, "patient") for name in ("group", "exam_id", "visit", "mole", "patient_name")],
        *[(name, "patient") for name in ("PID", "MRN", "patid", "PtNo", "studyid", "patients")],
        *[(name, "patient") for name in ("anon_patient", "patient_x", "Patientennummer")],
        *[(name, "patient") for name in ("Medical Record Number", "id_pacientes", "IDPatient_x")],
        *[(name, "lesion") for name in ("lesion_id_x", "isic_lesion_id", "lesion_x", "lesions")],
    ],
)
def test_a_column_that_looks_like_a_grouping_is_refused_with_the_line_to_type(name, what):
    columns = {name.replace(" ", "__"): SIX}
    text = refused(columns)
    assert f"{name} looks like ids that group images of one lesion" in text
    for line, chosen in typed(text):
        assert found(columns, **chosen) == ({} if "none" in line else {what: name})
    assert found(columns, lesion="none") == {}


def typed(text):
    """The lines that a message gives, and what dataset.columns is by them."""
    words = [word for word in shlex.split(text) if word.startswith("dataset.columns.")]
    assert len(words) >= 2
    for word in words:
        key, _, name = word.removeprefix("dataset.columns.").partition("=")
        yield word, {key: name.strip('"')}


def test_deciding_one_does_not_decide_the_other():
    columns = {"lesion_id": SIX, "mrn": SIX}
    assert "dataset.columns.patient=mrn" in refused(columns)
    assert "dataset.columns.patient=mrn" in refused(columns, lesion="lesion_id")
    assert found(columns, patient="mrn") == {"lesion": "lesion_id", "patient": "mrn"}


def test_all_that_could_be_meant_are_named_and_a_line_keeps_what_is_known():
    text = refused({"lesion_id_x": SIX, "lesion_id_y": SIX, "patient_id": SIX})
    assert "lesion_id_x and lesion_id_y look like ids" in text
    assert "dataset.columns.lesion=lesion_id_x or dataset.columns.lesion=lesion_id_y" in text
    assert text.endswith("dataset.columns.lesion=none dataset.columns.patient=patient_id")
    text = refused({"patient_id": SIX, "mrn": SIX, "accession": SIX})
    assert "mrn and accession look" in text
    assert text.endswith("To ignore it: dataset.columns.patient=patient_id")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("group", ["control", "case"]),  # a category
        ("code", ["mel", "nv", "bcc", "df"]),
        ("nevus", [0, 1]),  # one of several columns of a class each
        ("exam_id", range(12)),  # no image belongs to another
        ("exam_id", [""]),
        ("exam_id", ["NA", "n.a.", "?"]),
        ("diameter_1", SIX),
        ("lesion_size_mm", SIX),
        ("n_lesions", SIX),
        ("fold", SIX),
    ],
)
def test_a_column_that_cannot_be_a_grouping_is_left_alone(name, values):
    assert found({name: values}) == {}


def test_a_fifth_of_the_cells_must_differ_in_a_column_of_ids():
    def codes(different):
        rows = [[str(i), str(i % different)] for i in range(60)]
        return Table(Path("labels.csv"), ("image_id", "code"), rows, list(range(2, 62)))

    assert find_columns(codes(11), ANYTHING, ["image_id"]) == {}
    with pytest.raises(UserError, match="code looks like ids that group images of one lesion"):
        find_columns(codes(12), ANYTHING, ["image_id"])


def test_several_that_could_be_meant_are_refused():
    text = refused({"patient_id": SIX, "case": SIX})
    assert "patient_id and case look like ids" in text
    assert "dataset.columns.patient=patient_id or dataset.columns.patient=case" in text
    assert found({"patient_id": SIX, "case": SIX}, patient="case") == {"patient": "case"}


def test_a_table_of_fixed_format_is_mended_by_renaming():
    mole = table(image_id=range(12), mole=SIX)
    with pytest.raises(UserError, match=r"Rename one column to patient_id to keep them"):
        find_columns(mole, ANYTHING, ["image_id"], configurable=False)


def test_what_is_used_is_said_in_one_line():
    known = table(lesion_id=SIX, patient_id=SIX, age_approx=[40], sex="mf")
    line = describe_columns(known, find_columns(known, ANYTHING, []))
    assert line == "labels.csv: groups by lesion_id and patient_id; age from age_approx; sex."
    line = describe_columns(known, find_columns(known, ANYTHING | {"lesion": "none"}, []))
    assert "lesion_id and patient_id not used, as dataset.columns says" in line
    assert describe_columns(table(image_id=range(12)), {}) == ""
    one = table(lesion_id=["NA"], patient_id=SIX, mrn=SIX)
    line = describe_columns(one, find_columns(one, ANYTHING | {"patient": "patient_id"}, []))
    assert line == (
        "labels.csv: groups by patient_id; lesion_id empty; mrn not used, as dataset.columns says."
    )


def test_kinds_of_lesions_are_no_ids():
    kinds = table(lesion=["melanoma", "nevus"], patient_id=SIX, label="ab")
    both = {"lesion": "lesion", "patient": "patient_id"}
    with pytest.raises(UserError, match=r"lesion has only the values melanoma and nevus") as caught:
        check_grouping_ids(kinds, both, kinds.values("label"))
    assert "dataset.columns.lesion=none dataset.columns.patient=patient_id" in str(caught.value)
    for ids in (table(lesion=SIX, label="ab"), table(lesion=["NA"], label="ab")):
        check_grouping_ids(ids, {"lesion": "lesion"}, ids.values("label"))
