"""Which files ``images=`` names, in what order, and how many are decoded ahead."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.image_files import decode_batches, find_image_files
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("b.png", "a.PNG", "sub/c.jpg", "sub/.hidden.png", "[x].png")):
        paint(tmp_path / name, (90, 90, 90), seed=i)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        (".", ["[x].png", "a.PNG", "b.png", "sub/c.jpg"]),
        ("sub/", ["c.jpg"]),
        ("./b.png", ["b.png"]),
        ("[x].png", ["[x].png"]),  # a file that is there is no pattern
        ("*", ["[x].png", "a.PNG", "b.png"]),
        ("[ab].*", ["a.PNG", "b.png"]),
        ("**/*.jpg", ["sub/c.jpg"]),
        ("notes.txt", ["notes.txt"]),  # asked for by its name: the content decides
    ],
)
def test_what_is_asked_for(folder, typed, ids):
    found = find_image_files(typed)
    assert [image_id for image_id, _ in found.walk()] == ids
    assert found.count == len(ids)
    assert all(Path(path).is_file() for _, path in found.walk())


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (None, "images is not set"),
        ("nowhere", "no such file or folder"),
        ("*.gif", "no image matches this pattern"),
        ("x" * 5000, "no such file or folder"),
        ("a\x00b", "no such file or folder"),
    ],
)
def test_mistakes(folder, typed, told):
    with pytest.raises(UserError, match=told):
        find_image_files(typed)


def test_a_near_miss_is_named(tmp_path):
    (tmp_path / "X.JPG").touch()
    with pytest.raises(
        UserError, match=r"x\.jpg: no such file or folder\. The folder has X\.JPG\."
    ):
        find_image_files(str(tmp_path / "x.jpg"))


def test_a_folder_without_images_says_what_is_in_it(tmp_path):
    (tmp_path / "scan.dcm").touch()
    with pytest.raises(UserError, match=r"found 1 \.dcm"):
        find_image_files(str(tmp_path))


def test_a_bounded_number_of_files_is_decoded_ahead(folder):
    taken = itertools.count()
    asked = ((str(next(taken)), str(folder / "b.png")) for _ in itertools.repeat(0))
    batches = decode_batches(asked, size=8, resize=Resize.squash, batch_size=4, threads=2)
    first, second = next(batches), next(batches)
    assert first.image_ids == ("0", "1", "2", "3")
    assert second.pixels.shape == (4, 8, 8, 3)
    assert not np.shares_memory(first.pixels, second.pixels)
    assert next(taken) < 20
    batches.close()


def test_order_is_kept_and_what_cannot_be_read_is_passed_over(folder):
    paths = ["b.png", "notes.txt", "a.PNG", "nowhere.png", "sub"]
    batches = list(
        decode_batches(
            ((path, path) for path in paths), size=8, resize=Resize.squash, batch_size=1, threads=2
        )
    )
    assert [batch.image_ids for batch in batches] == [("b.png",), ("a.PNG",), ()]
    assert [[name for name, _ in batch.unreadable] for batch in batches] == [
        [],
        ["notes.txt"],
        ["nowhere.png", "sub"],
    ]
