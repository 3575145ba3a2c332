"""Datasets that come as a table of images."""

import math
import re

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.readers import read_listing
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def read(composed, tmp_path):
    """Read a table of given lines (or bytes); two images are there."""
    root = tmp_path / "root"
    for name in ("1", "2"):
        paint(root / "a" / f"{name}.png", (9, 9, 9), seed=int(name))

    def read(lines, *overrides):
        content = lines if isinstance(lines, bytes) else "\n".join(lines).encode()
        (root / "manifest.csv").write_bytes(content)
        config = composed("dataset=csv", f"dataset.root={root}", *overrides)
        return read_listing(config.dataset, tmp_path).images

    return read


def refused(read, lines, *overrides):
    with pytest.raises(UserError) as caught:
        read(lines, *overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_table_is_read(read):
    table = read(["image_id,label,lesion,split", "a/1.png,nevus,L1,Validation"])
    assert table.loc[0, ["image_id", "label", "lesion", "published"]].tolist() == [
        *("a/1.png", "nevus", "L1", "val")
    ]


NAMED = ["file;dx;patient;site;biopsy;part", "1;nevus;P1;Vienna;melanoma;TRAIN"]
COLUMNS = [
    "dataset.images=a",
    "dataset.columns={image: file, label: dx, lesion: patient, source: site}",
    "dataset.columns.diagnosis=biopsy",
    "dataset.columns.split=part",
]


def test_columns_may_have_other_names(read):
    (row,) = read(NAMED, *COLUMNS).to_dict("records")
    assert row["path"].endswith("/a/1.png")
    del row["path"]
    assert math.isnan(row.pop("age"))
    assert row == {
        "image_id": "a/1.png",
        "label": "nevus",
        "lesion": "P1",
        "patient": "",
        "source": "Vienna",
        "diagnosis": "melanoma",
        "published": "train",
        "sex": "",
        "site": "",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("encoding", "override"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-8"),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
    ],
)
def test_delimiters_and_encodings(read, delimiter, encoding, override):
    text = delimiter.join(["image_id", "label", "note"]) + "\r\n"
    text += delimiter.join(["a/1.png", "nævus bénin", '"with , ; and a\r\nsecond line"']) + "\r\n"
    table = read(text.encode(encoding), f"dataset.encoding={override}")
    assert table["label"].tolist() == ["nævus bénin"]


def test_another_encoding_is_not_guessed(read):
    text = refused(read, "image_id,label\na/1.png,nævus".encode("latin-1"))
    assert "not a text in utf-8" in text
    assert "dataset.encoding, for example to latin-1" in text


@pytest.mark.parametrize("name", ["no-such-code", "rot13", "base64", "zlib"])
def test_an_encoding_that_is_none_is_refused(read, name):
    assert "dataset.encoding: expected an encoding of text" in refused(
        read, ["image_id,label", "a/1.png,x"], f"dataset.encoding={name}"
    )


@pytest.mark.parametrize(
    "name", [r"a\1.png", "./a/1.png", "a//1.png", "a/../a/1.png", "a/1", r".\a\1", "  a/1.png "]
)
def test_one_image_spelt_in_many_ways_has_one_id(read, name):
    assert read(["image_id,label", f"{name},x"])["image_id"].tolist() == ["a/1.png"]
    text = refused(read, ["image_id,label", f"{name},x", "a/1.png,x"])
    assert "a/1.png occurs twice, in lines 2 and 3, with the same values" in text


def test_an_image_that_has_two_lesions_or_labels_says_which(read):
    text = refused(read, ["image_id,label,lesion", "a/1.png,x,L1", "a/2.png,x,L1", "a/1.png,y,L2"])
    assert "in lines 2 and 4, with label 'x' and 'y'; lesion 'L1' and 'L2'" in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image_id,label", "a/3.png,x"], r"a/3\.png \(line 2\): no file below .*/root\."),
        (["image_id,label", *(f"{i}.png,x" for i in range(9))], r"4\.png \(line 6\) and 4 more"),
        (["image_id,label", "a,x"], r"a \(line 2\): no file"),
        (["image_id,label", "a/\0.png,x"], "no file below"),
        (["image_id,label", f"{'n' * 5000},x"], "no file below"),
        (["image_id,label,split", "a/1.png,x,trian"], r"trian of a/1\.png .* Did you mean train\?"),
        (["image_id,label,split", "a/1.png,x,fold 3"], "expected train, val, test or nothing"),
        (["image_id", "a/1.png"], "no column label"),
        (["image,label", "a/1.png,x"], r"no column image_id \(dataset\.columns\.image\)\. Did you"),
        (["image_id,label,label", "a/1.png,x,y"], "2 columns are called label"),
        (["image_id,label"], "the table lists no images"),
        ([""], "no column image_id"),
        (["image_id,label", "a/1.png,", "a/2.png, "], "no label in 2 lines: 2 and 3"),
        (["image_id,label", ",x"], "no image named in 1 line: 2"),
        (["image_id,label", "a/1.png"], "line 2 has 1 cells; expected 2"),
        (["image_id,label", "a/1.png,x,y"], "line 2 has 3 cells; expected 2"),
        (["image_id,label", '"a/1.png,x'], "cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(read, lines, message):
    assert re.search(message, refused(read, lines))


def test_lines_are_counted_as_the_file_has_them(read):
    lines = ["image_id,label,note", "", 'a/1.png,x,"one', 'two"', ",,", "a/2.png,,"]
    assert "no label in 1 line: 6" in refused(read, lines)


def test_a_near_miss_is_named_and_few_of_many(read):
    text = refused(read, ["image_id,label", "a/1.jpg,x", *(f"a/{i}.bmp,x" for i in range(7, 99))])
    assert "a/1.jpg (line 2), a/7.bmp (line 3)" in text
    assert "and 88 more: no file below" in text
    assert "The folder has 1.png." in text


def test_a_column_that_was_named_must_be_there(read):
    lines = ["image_id,label,patient_id", "a/1.png,x,P1"]
    assert read(lines)["patient"].tolist() == ["P1"]
    text = refused(read, lines, "dataset.columns.lesion=patient")
    assert "no column patient (dataset.columns.lesion). Did you mean patient_id?" in text
    text = refused(read, lines, "dataset.columns.label=''")
    assert "dataset.columns.label: expected a column's name" in text


def test_a_missing_table_is_named(read):
    text = refused(read, ["image_id,label"], "dataset.table=labels.csv")
    assert "no labels.csv in it" in text


def test_paths_do_not_leave_the_root_without_leave(read, tmp_path):
    outside = paint(tmp_path / "outside.png", (9, 9, 9), seed=9)
    (tmp_path / "root" / "link.png").symlink_to(outside)
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    for name in (
        "../outside.png",
        str(outside),
        "link.png",
        "folder/outside.png",
        "a/../../outside",
    ):
        lines = ["image_id,label", "a/1.png,x", f"{name},x"]
        text = refused(read, lines)
        assert "leads out of dataset.root" in text
        assert "dataset.outside_root=true" in text
        assert len(read(lines, "dataset.outside_root=true")) == 2


def test_an_absolute_path_inside_the_root_is_one_of_it(read, tmp_path):
    path = tmp_path / "root" / "a" / "1.png"
    assert read(["image_id,label", f"{path},x"])["image_id"].tolist() == ["a/1.png"]


def test_the_tables_split_is_taken(composed, tmp_path, session_cache):
    from melanoma_lab.input_pipeline.prepare import prepare_data

    lines = ["image_id,label,split"]
    for number, part in enumerate(["train"] * 4 + ["val", "test"]):
        for label in ("x", "y"):
            name = f"{label}{number}.png"
            seed = 50 * number + ord(label)
            paint(tmp_path / name, (9 + 30 * number, 200 - 9 * seed % 90, 9), seed=seed)
            lines.append(f"{name},{label},{part}")
    paint(tmp_path / "spare.png", (200, 200, 200), seed=1000)
    lines.append("spare.png,x,")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    overrides = ("dataset=csv", f"dataset.root={tmp_path}", "dataset.image_size=16")
    config = composed(*overrides, "split=predefined", "dataset.groups=lesion")
    manifest = prepare_data(config, cache=session_cache, threads=2).manifest
    assert len(manifest) == 12
    assert manifest["split"].tolist() == manifest["published"].tolist()
    assert manifest["split"].value_counts().to_dict() == {"train": 8, "val": 2, "test": 2}
