"""``dataset=folder`` on trees as people have them: what is taken, what is refused and why."""

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import slugify
from melanoma_lab.data.folder_reader import read_class_folders
from melanoma_lab.data.image_files import (
    COMPANIONS,
    describe_ignored_files,
    find_ignored_files,
    find_images,
)
from melanoma_lab.data.labels import MAX_SLUG_LENGTH
from melanoma_lab.input_pipeline.prepare import prepare_data
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def plant(tmp_path):
    def plant(*names, colour=(9, 9, 9)):
        for name in names:
            paint(tmp_path / name, colour, seed=sum(map(ord, name)))
        return tmp_path

    return plant


def labels(root):
    table = read_class_folders(root).images
    return dict(zip(table["image_id"], table["label"], strict=True))


def test_names_with_blanks_scripts_and_punctuation_are_as_they_are(plant):
    names = [
        "actinic keratosis/a b.png",
        "nævus/émile (1).png",
        "色素痣/画像.png",
        'it\'s, 100% "odd" [x]=${y}/a,b;c.png',
        f"{'n' * 200}/{'i' * 200}.png",
    ]
    assert labels(plant(*names)) == {name: name.split("/")[0] for name in names}


def test_endings_count_in_any_case_and_companions_do_not(plant):
    root = plant("a/1.JPG", "a/2.Jpeg", "a/3.PNG", "a/4.tif", "a/5.GIF", "a/6.WebP", "a/7.bmp")
    for name in ("Thumbs.db", "._1.JPG", ".DS_Store", "notes.txt", "8", "9.heic", "10.jpg.part"):
        (root / "a" / name).write_text("no image")
    assert len(labels(root)) == 7
    kinds, empty = find_ignored_files(root)
    assert kinds == {"without an ending": 1, ".heic": 1, ".part": 1}
    assert empty == []


def test_what_was_left_aside_is_said(plant):
    root = plant("a/1.png")
    for name in ("b", "c/d"):
        (root / name).mkdir(parents=True)
    (root / "b" / "1.HEIC").write_text("x")
    files, folders = describe_ignored_files(root)
    assert "1 files were ignored" in files
    assert "1 .heic" in files
    assert folders == "3 folders contain no images and are ignored: b, c and c/d."
    assert describe_ignored_files(root / "a") == []


def test_where_there_are_none_the_message_says_what_there_is(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_text("x")
    with pytest.raises(UserError, match=r"no images in it; expected .*; found 3 \.dcm\."):
        find_images(tmp_path)


def test_companions_are_spelt_as_they_are_looked_up():
    assert {name.lower() for name in COMPANIONS} == COMPANIONS


@pytest.mark.parametrize(
    "names",
    [
        ["nevus/1.png", "nevus/more/2.png", "other/3.png"],
        ["Train/nevus/1.png", "Train/nevus/2019/may/2.png"],
    ],
)
def test_a_class_in_a_class_is_refused(plant, names):
    with pytest.raises(
        UserError,
        match=r"nevus contains images and also, in .*, a folder of "
        "images",
    ):
        read_class_folders(plant(*names))


def test_classes_may_lie_at_different_depths(plant):
    names = ["site 1/nevus/1.png", "site 2/deep/nevus/2.png", "melanoma/3.png"]
    table = read_class_folders(plant(*names), classes=["melanoma", "nevus"]).images
    assert set(table["label"]) == {"nevus", "melanoma"}


def test_images_beside_the_class_folders_are_refused(plant):
    with pytest.raises(UserError, match=r"cover\.jpg lies in no class folder"):
        read_class_folders(plant("nevus/1.png", "cover.jpg"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("Nevus", "nevus"), "would share the column prob/nevus"),
        (("blue nevus", "blue-nevus"), "would share the column prob/blue_nevus"),
        (("nævus",), "only one class"),
        (("cafe\u0301", "caf\xe9"), "would share the column prob/caf\xe9"),
        (("!!!", "nevus"), "has no letters or digits"),
        (("n" * (MAX_SLUG_LENGTH + 1), "nevus"), "too long to name a metric by"),
    ],
)
def test_classes_that_cannot_be_told_apart_by_name_are_refused(
    plant, composed, session_cache, classes, message
):
    root = plant(*(f"{name}/{i}.png" for name in classes for i in range(4)))
    config = composed(
        "dataset=folder", f"dataset.root='{root}'", "dataset.image_size=16",
        "dataset.conflicts=keep", "dataset.groups=none",
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        prepare_data(config, cache=session_cache, threads=2)


def test_slugs_of_every_script_fit_mlflow():
    from mlflow.utils.validation import _validate_metric_name

    for name in ("nævus", "色素痣", "Spitz-Nevus, 2", "e\u0301"):
        _validate_metric_name(f"test/sensitivity/{slugify(name)}")
    assert slugify("Nævus (blå)") == "nævus_blå"
    assert slugify("色素痣") == "色素痣"
