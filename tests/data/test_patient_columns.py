"""What a dataset says of patients: read, spelt alike, unknown where it is; refused where wrong."""

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.config.schema.data import Ham10000Dataset
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.listing import normalise_patient_columns
from melanoma_lab.data.readers import read_listing
from melanoma_lab.data.synthetic_classes import sample_patients
from melanoma_lab.input_pipeline.prepare import prepare_data
from tests.support.pictures import paint

pytestmark = pytest.mark.unit

KNOWN = ["age", "sex", "site"]
NAMES = ["years", "sx", "where"]


def parsed(ages, **columns):
    table = pd.DataFrame({"age": ages, "sex": "Male", "site": "", "line": range(2, 2 + len(ages))})
    return normalise_patient_columns(
        "t.csv", table.assign(lesion="", patient="").assign(**columns), needed=True
    )


def test_words_are_spelt_alike_and_what_is_unknown_is_missing():
    table = parsed(["", "45", "61.5", "Unknown"], sex=["F ", "f", "NA", "?"], site="Lower Leg")
    np.testing.assert_array_equal(table["age"], [np.nan, 45, 61.5, np.nan])
    assert list(table["sex"]) == ["f", "f", "", ""]
    assert set(table["site"]) == {"lower leg"}


@pytest.mark.parametrize("wrong", ["forty", "-5", "400", "inf", "40-50"])
def test_an_age_that_is_none_is_refused_with_its_line(wrong):
    with pytest.raises(UserError, match=rf"t\.csv: age {wrong} \(line 3\); expected years from 0"):
        parsed(["40", wrong])


@pytest.fixture
def table_of(composed, tmp_path):
    """A csv dataset whose table is given; returns what its listing says of patients."""
    for name in "ab":
        paint(tmp_path / f"{name}.png", (9, 9, 9), seed=ord(name))

    def read(header, rows, *overrides, patients=True):
        (tmp_path / "manifest.csv").write_text("\n".join([f"image_id,label,{header}", *rows]))
        config = composed("dataset=csv", f"dataset.root={tmp_path}", *overrides)
        table = read_listing(config.dataset, tmp_path, patients=patients).images
        return table[KNOWN].to_dict("list")

    return read


def test_a_table_says_it_by_its_own_names(table_of):
    expected = {"age": [50.0, 7.0], "sex": ["f", "m"], "site": ["arm", ""]}
    assert table_of("age,sex,site", ["a.png,x,50,F,Arm", "b.png,y,7,m,"]) == expected
    named = [f"dataset.columns.{k}={v}" for k, v in zip(KNOWN, NAMES, strict=True)]
    assert table_of("years,sx,where", ["a.png,x,50,F,Arm", "b.png,y,7,m,"], *named) == expected


def test_a_wrong_age_stops_those_alone_who_ask_for_it(table_of):
    rows = ["a.png,x,50", "b.png,y,old"]
    with pytest.raises(UserError, match=r"manifest\.csv: age old \(line 3\)"):
        table_of("age", rows)
    np.testing.assert_array_equal(table_of("age", rows, patients=False)["age"], [50, np.nan])
    with pytest.raises(UserError, match=r"no column years \(dataset\.columns\.age\)"):
        table_of("age", rows, "dataset.columns.age=years")


def test_ham10000_says_it_and_its_age_0_is_none(tmp_path):
    for i in range(3):
        paint(tmp_path / "images" / f"I{i}.jpg", (9, 9, 9), seed=i)
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,age,sex,localization\n"
        "L0,I0,mel,80.0,male,scalp\nL1,I1,mel,,unknown,unknown\nL2,I2,nv,0.0,female,back\n"
    )
    diagnoses = {"mel": "melanoma", "nv": "nevus"}
    config = Ham10000Dataset(name="ham10000", root=str(tmp_path), diagnoses=diagnoses)
    table = read_listing(config, tmp_path).images
    np.testing.assert_array_equal(table["age"], [80, np.nan, np.nan])
    assert list(table["sex"]) == ["male", "", "female"]
    assert list(table["site"]) == ["scalp", "", "back"]


def test_patients_of_drawn_lesions_are_the_same_ever_again_and_tell_a_little():
    lesions = [f"SYNL_{i // 2:06d}" for i in range(4000)]
    labels = ["nevus" if i // 2 % 2 else "Melanoma" for i in range(4000)]
    table = sample_patients(lesions, labels, 0)
    pd.testing.assert_frame_equal(table, sample_patients(lesions, labels, 0))
    assert not table.equals(sample_patients(lesions, labels, 1))
    pd.testing.assert_frame_equal(  # of one lesion, and whatever others there are
        table.iloc[10:11].reset_index(drop=True), sample_patients(lesions[11:12], labels[11:12], 0)
    )
    older = table["age"][np.array(labels) == "Melanoma"].mean()
    assert 15 < older - table["age"][np.array(labels) == "nevus"].mean() < 25
    for missing in (table["age"].isna(), table["sex"] == "", table["site"] == ""):
        assert 0.03 < missing.mean() < 0.07
    assert table["age"].dropna().mod(5).eq(0).all()


@pytest.mark.slow
def test_the_digest_of_the_images_does_not_know_of_patients(composed, session_cache):
    small = ("dataset.lesions=30", "dataset.image_size=16", "split.train=0.4", "split.val=0.3")
    small += ("split.test=0.3", "dataset.classes=[melanoma,nevus]")
    plain, patient = (
        prepare_data(composed(*small, f"metadata={name}"), cache=session_cache, threads=1)
        for name in ("none", "patient")
    )
    assert (plain.digest, plain.split_hash) == (patient.digest, patient.split_hash)
    assert plain.patients is None
    assert plain.training_split().metadata is None
    assert patient.training_split().metadata.shape[0] == len(patient.select_split("train"))


def test_a_dataset_without_them_is_refused(composed, tree, session_cache):
    config = composed("dataset=folder", f"dataset.root={tree}", "metadata=patient")
    with pytest.raises(UserError, match=r"has no age of its patients; it has no pati"):
        prepare_data(config, cache=session_cache, threads=1)


@pytest.mark.parametrize("columns", ["[]", "[age,agee]", "[age,age]"])
def test_columns_are_checked(composed, columns):
    with pytest.raises(UserError, match=r"metadata\.columns: expected some of age, sex, site"):
        composed("metadata=patient", f"metadata.columns={columns}")
