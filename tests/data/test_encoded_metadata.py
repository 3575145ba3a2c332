"""The encoding of metadata: tables worked by hand, what must always hold, and nothing of others."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.schema.data import NoMetadata, PatientMetadata
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.patient_metadata import (
    AgeScaler,
    CategoryEncoder,
    PatientEncoder,
    encode_patients,
    fit_patient_encoder,
)

pytestmark = pytest.mark.unit

NAN = math.nan


def rows_of(*rows):
    table = pd.DataFrame(rows, columns=["split", "age", "sex", "site"])
    return table.assign(image_id=[f"{i}.png" for i in range(len(table))])


BY_HAND = rows_of(
    ("train", 30.0, "male", "back"),
    ("train", 50.0, "female", "back"),
    ("train", NAN, "male", "face"),
    ("val", 60.0, "", "moon"),
    ("test", NAN, "other", ""),
)


def test_by_hand():
    found = encode_patients(BY_HAND, PatientMetadata("patient"))
    assert dict(found.encoding.columns) == {
        "age": AgeScaler(mean=40, sd=10, missing=True),
        "sex": CategoryEncoder(("female", "male"), missing=False),
        "site": CategoryEncoder(("back", "face"), missing=False),
    }
    expected = [
        # age, missing; female, male; back, face
        [-1, 0, 0, 1, 1, 0],
        [1, 0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0, 1],
        [2, 0, 0, 0, 0, 0],  # no training image lacks its sex: nothing says so
        [0, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(found.numbers, expected)
    assert found.numbers.dtype == np.float32
    sex, site = found.notes
    assert sex.startswith("In val and test 1 image has a sex that no training image has (other)")
    assert site.endswith("has a site that no training image has (moon): it counts as missing.")


def test_what_training_images_lack_has_a_number_of_its_own():
    encoding = fit_patient_encoder(
        rows_of(("train", 1.0, "", "a"), ("train", 1.0, "m", "")), ["sex"]
    )
    assert encoding.to_dict() == {"sex": {"values": ("m",), "missing": True}}
    asked = rows_of(("test", 1.0, "", ""), ("test", 1.0, "m", ""), ("test", 1.0, "new", ""))
    np.testing.assert_array_equal(encoding.encode(asked), [[0, 1], [1, 0], [0, 1]])


def test_one_age_only_divides_by_nothing():
    encoding = fit_patient_encoder(rows_of(("train", 7.0, "", ""), ("train", 7.0, "", "")), ["age"])
    np.testing.assert_array_equal(encoding.encode(rows_of(("test", 9.0, "", ""))), [[2]])


def test_columns_without_a_training_value_are_refused():
    table = rows_of(("train", NAN, "m", "a"), ("test", 4.0, "m", "a"))
    with pytest.raises(UserError, match="no training image has a value for age; leave it out"):
        encode_patients(table, PatientMetadata("patient"))
    assert encode_patients(table, PatientMetadata("patient", columns=["sex", "site"])) is not None
    assert encode_patients(table, NoMetadata("none")) is None


def test_what_the_dataset_knows_is_said():
    table = BY_HAND.assign(site="")
    with pytest.raises(UserError, match=r"has no site of its patients; it has age and sex"):
        encode_patients(table, PatientMetadata("patient"))


PATIENTS = st.tuples(
    st.one_of(st.just(NAN), st.floats(0, 120)),
    st.sampled_from(["", "male", "female"]),
    st.sampled_from(["", "a", "b", "c"]),
)


@given(
    st.lists(PATIENTS, min_size=1, max_size=20),
    st.lists(PATIENTS, max_size=10),
    st.lists(PATIENTS, max_size=10),
)
def test_other_splits_change_nothing_of_the_encoding(train, others, instead):
    def found(rest):
        table = rows_of(
            ("train", 30.0, "male", "a"),
            *(("train", *row) for row in train),
            *(("val", *row) for row in rest[::2]),
            *(("test", *row) for row in rest[1::2]),
        )
        return encode_patients(table, PatientMetadata("patient"))

    one, other = found(others), found(instead)
    assert one.encoding == other.encoding
    n = 1 + len(train)
    np.testing.assert_array_equal(one.numbers[:n], other.numbers[:n])
    assert np.isfinite(one.numbers).all()
    assert one.numbers.shape[1] == one.encoding.width
    ages = one.numbers[:n, 0]
    assert abs(ages.mean()) < 1e-3  # a missing age is the mean
    hot = one.numbers[:n, one.encoding.columns["age"].width :]
    np.testing.assert_array_equal(hot.sum(axis=1), 2)  # of training images every fact has a number


def test_the_digest_covers_every_fact_and_nothing_else():
    def digest(table, **columns):
        return encode_patients(
            table.assign(**columns), PatientMetadata("patient", columns=["sex"])
        ).digest

    assert digest(BY_HAND) == digest(BY_HAND, label="x", split="train")
    others = [{"age": [31.0, 50, NAN, 60, NAN]}, {"site": "back"}, {"image_id": list("abcde")}]
    assert len({digest(BY_HAND), *(digest(BY_HAND, **other) for other in others)}) == 4


def test_an_encoding_is_read_as_it_was_described():
    found = encode_patients(BY_HAND, PatientMetadata("patient")).encoding
    read = PatientEncoder.read(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(read.encode(BY_HAND), found.encode(BY_HAND))
    columns = read.to_model_inputs(BY_HAND)
    assert {name: (column.dtype, column.shape) for name, column in columns.items()} == {
        "age": (np.float32, (5, 1)),
        "sex": (np.int32, (5, 1)),
        "site": (np.int32, (5, 1)),
    }
    assert columns["site"].ravel().tolist() == [0, 0, 1, -1, -1]


@pytest.mark.parametrize(
    "said",
    [None, [], {"age": {}}, {"sex": {"values": 1}}, {"name": {"values": [], "missing": True}}],
)
def test_what_is_no_encoding_is_refused(said):
    with pytest.raises(ValueError, match="Expected an encoding of patients"):
        PatientEncoder.read(said)
