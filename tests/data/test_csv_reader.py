"""Datasets that come as a table of images."""

import pytest
from pictures import paint

from melanoma_lab.data.readers import read_dataset
from melanoma_lab.errors import UserError


@pytest.fixture
def csv_config(composed, tmp_path):
    paint(tmp_path / "a" / "1.png", (9, 9, 9), seed=0)

    def config(*lines):
        (tmp_path / "manifest.csv").write_text("\n".join(lines))
        return composed("dataset=csv", f"dataset.root={tmp_path}").dataset

    return config


def test_a_table_is_read(csv_config, tmp_path):
    table = read_dataset(
        csv_config("image_id,label,lesion,split", "a/1.png,nevus,L1,Validation"), tmp_path
    )
    assert table.loc[0, ["image_id", "label", "lesion", "published"]].tolist() == [
        *("a/1.png", "nevus", "L1", "val")
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image_id,label", "a/2.png,x"], r"image_id a/2\.png is no file below"),
        (["image_id,label", "../manifest.csv,x"], "is no file below"),
        (["image_id,label,split", "a/1.png,x,holdout"], "split holdout of a/1.png; expected"),
        (["image_id", "a/1.png"], "no column label"),
        (["image_id,label"], "no images in it"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(csv_config, tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read_dataset(csv_config(*lines), tmp_path)
