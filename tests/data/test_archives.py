"""Folders as archives ship them: refused with the reader that fits, or read honestly."""

import csv
import shlex
from zlib import crc32

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.folder_reader import parse_published_split, read_class_folders
from melanoma_lab.data.readers import read_listing
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.runs.run_messages import show_data
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def plant(tmp_path):
    def plant(*names):
        for name in names:
            paint(tmp_path / name, (99, 90, 40), seed=crc32(name.encode()))
        return tmp_path

    return plant


def write(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    "folders",
    [
        ["HAM10000_images_part_1", "HAM10000_images_part_2"],
        ["images/imgs_part_1/imgs_part_1", "images/imgs_part_2/imgs_part_2"],
        ["ISIC2018_Task3_Training_Input", "ISIC2018_Task3_Test_Input"],
        ["ISIC_2019_Training_Input"],
        ["batch-1", "batch-2"],
        ["fold1", "fold2"],
        ["images"],
        ["jpeg/images", "png/images"],
        ["melanoma", "part3"],
        ["ISIC_2020_Training_JPEG", "ISIC_2020_Test_JPEG"],
        ["mel_train", "nv_train"],
        ["images_a", "images_b"],
        ["part_one", "part_two - Copy"],
        ["UDA-1", "MSK-2"],
    ],
)
def test_parts_of_an_archive_are_no_classes(plant, folders):
    root = plant(*(f"{folder}/{i}.png" for folder in folders for i in range(2)))
    with pytest.raises(UserError, match="of images of several classes, a part of an archive"):
        read_class_folders(root)


def test_parts_are_classes_if_the_user_says_so(plant):
    root = plant("part1/1.png", "part2/2.png")
    with pytest.raises(UserError, match=r"say so: 'dataset\.classes=\[part1,part2\]'"):
        read_class_folders(root)
    found = read_class_folders(root, classes=["part1", "part2"]).images
    assert list(found["label"]) == ["part1", "part2"]


def test_the_reader_that_fits_is_named(plant, composed):
    root = plant(*(f"part_{i % 2 + 1}/ISIC_{i}.png" for i in range(4)))
    codes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    rows = [[f"ISIC_{i}", f"L{i}", code] for i, code in enumerate(codes)]
    write(root / "meta.tab", ["image_id", "lesion_id", "dx"], *rows)
    with pytest.raises(UserError, match=r"`dataset=ham10000 dataset.metadata=meta\.tab` reads it"):
        read_class_folders(root)
    write(root / "meta.tab", ["name", "patient_id", "dx"], *rows)
    with pytest.raises(UserError, match="list the images and their labels in a table"):
        read_class_folders(root)  # in two folders, so that no reader finds them


@pytest.mark.parametrize("place", [".", "jpeg/train"])
def test_a_table_of_any_columns_is_named_with_the_words_that_read_it(plant, composed, place):
    root = plant(*(f"{place}/{i}.png" for i in range(4)))
    write(
        root / "train.csv",
        ["patient_id", "file", "dx"],
        *([f"P{i}", i, "ab"[i % 2]] for i in range(4)),
    )
    with pytest.raises(
        UserError, match=r"lie in no class folder.* Instead, `dataset=csv"
    ) as caught:
        read_class_folders(root)
    words = str(caught.value).split("`")[1].split()
    assert ("dataset.images=jpeg/train" in words) == (place != ".")
    listing = read_listing(composed(*words, f"dataset.root={root}").dataset, root)
    assert list(listing.images["label"]) == ["a", "b", "a", "b"]
    assert listing.grouped_by == ("patient_id",)
    with pytest.raises(UserError, match=r"no manifest\.csv in it.* Instead, `dataset=csv"):
        read_listing(composed("dataset=csv", f"dataset.root={root}").dataset, root)


def test_a_table_with_another_ending_is_named(plant, composed):
    root = plant("images/1.png")
    write(root / "HAM10000_metadata", ["a"], ["b"])
    with pytest.raises(
        UserError, match=r"has HAM10000_metadata: dataset\.metadata=HAM10000_metadata$"
    ):
        read_listing(composed("dataset=ham10000", f"dataset.root={root}").dataset, root)


def test_folders_of_one_name_are_not_silently_one_class(plant):
    root = plant("benign/other/1.png", "malignant/other/2.png", "malignant/melanoma/3.png")
    with pytest.raises(
        UserError, match=r"called other: benign/other and malignant/other\."
    ) as caught:
        read_class_folders(root)
    assert "'dataset.classes=[melanoma,other]'" in str(caught.value)
    found = read_class_folders(root, classes=["melanoma", "other"]).images
    assert list(found["label"]) == ["other", "melanoma", "other"]


def test_a_class_is_not_inside_and_outside_a_published_part(plant):
    with pytest.raises(UserError, match="called mel: mel and train/mel"):
        read_class_folders(plant("mel/1.png", "nv/2.png", "train/mel/3.png", "train/nv/4.png"))


def test_folders_of_patients_are_no_classes(plant):
    root = plant(*(f"mel/patient_{i:02}/{i}.png" for i in range(4)))
    with pytest.raises(UserError, match=r"patient_00, patient_01, .* folders of a single patient"):
        read_class_folders(root)


def test_stray_images_can_be_left_out(plant):
    root = plant(*(f"{c}/{i}.png" for c in "ab" for i in range(10)), "class distribution.png")
    with pytest.raises(UserError, match=r"class distribution\.png lies in no class") as caught:
        read_class_folders(root)
    (word,) = shlex.split(str(caught.value).partition("leave them out: ")[2])
    assert word == "dataset.exclude=[class distribution.png]"
    assert len(read_class_folders(root, exclude=["class distribution.png"]).images) == 20


def test_a_folder_of_images_in_a_class_folder_is_no_class(plant):
    found = read_class_folders(plant("nevus/images/1.png", "melanoma/jpg/2.png")).images
    assert list(found["label"]) == ["melanoma", "nevus"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[("Train", "train"), ("train_set", "train"), ("Training Images", "train")],
        *[("val_set", "val"), ("validation", "val"), ("valid", "val"), ("TestData", "test")],
        *[("test1", ""), ("nevus", ""), ("train_val", ""), ("trainee", ""), ("images", "")],
    ],
)
def test_usual_names_of_published_parts(name, part):
    assert parse_published_split(name) == part


def test_a_table_that_names_lesions_and_is_not_read_is_said(plant, composed):
    root = plant("a/1.png", "b/2.png")
    write(root / "meta.csv", ["image", "lesion_id"], ["1", "L1"])
    listing = read_listing(composed("dataset=folder", f"dataset.root={root}").dataset, root)
    (note,) = listing.notes
    assert note.startswith("meta.csv has lesion_id but is not read")


def test_images_that_are_there_twice_are_said(plant, composed):
    root = plant("part_1/1.png", "Part_1/1.png", "part_1/2.png")
    write(
        root / "HAM10000_metadata.csv",
        ["image_id", "lesion_id", "dx"],
        *[["1", "L1", "mel"], ["2", "L2", "nv"]],
    )
    listing = read_listing(composed("dataset=ham10000", f"dataset.root={root}").dataset, root)
    assert "1 images occur more than once, such as Part_1/1.png and part_1/1.png." in (
        listing.notes
    )


@pytest.fixture
def prepared(plant, composed, session_cache):
    """A table of 24 images, two a lesion and four a patient, prepared as overrides say."""

    def prepared(header, *overrides):
        root = plant(*(f"{i:02}.png" for i in range(24)))
        known = {"L": lambda i: f"L{i // 2}", "P": lambda i: f"P{i // 4}", "": lambda _: ""}
        rows = [
            [f"{i:02}.png", "ab"[i // 12], *(known[kind](i) for kind in header.values())]
            for i in range(24)
        ]
        write(root / "manifest.csv", ["image_id", "label", *header], *rows)
        config = composed("dataset=csv", f"dataset.root={root}", "dataset.image_size=8", *overrides)
        return prepare_data(config, cache=session_cache, threads=1)

    return prepared


@pytest.mark.parametrize(
    ("header", "overrides", "protocol", "groups"),
    [
        ({"Lesion_ID": "L"}, [], "grouped", 12),
        ({"lesion_id": "L", "case-no": "P"}, [], "grouped", 6),
        ({"subject": "P"}, [], "grouped", 6),
        ({"subject": "P"}, ["dataset.columns.lesion=none"], "ungrouped", 24),
        ({"lesion_id": "L"}, ["dataset.columns.lesion=none"], "ungrouped", 24),
        ({"lesion_id": "L", "pid": "P"}, ["dataset.columns.patient=pid"], "grouped", 6),
        ({"lesion_id": "L", "pid": "P"}, ["dataset.columns.patient=none"], "grouped", 12),
        ({"lesion_id": "L"}, ["dataset.groups=none"], "leaking", 24),
        ({"patient_id": "P"}, ["dataset.groups=duplicates"], "leaking", 24),
        ({}, [], "ungrouped", 24),
        ({"lesion_id": ""}, [], "ungrouped", 24),
    ],
)
def test_grouped_is_only_what_something_groups(prepared, header, overrides, protocol, groups):
    data = prepared(header, *overrides)
    assert (data.protocol, data.manifest["group"].nunique()) == (protocol, groups)
    if protocol == "grouped":
        sides = data.manifest.groupby("group")["split"].nunique()
        assert set(sides) == {1}


@pytest.mark.parametrize("empty", ["", "NA", "nan", "Unknown", "None", "-", "?", "  "])
def test_an_empty_cell_is_a_group_of_its_own(plant, composed, empty):
    root = plant(*(f"{i}.png" for i in range(4)))
    rows = zip((f"{i}.png" for i in range(4)), "abab", ["L1", empty, "L1", empty], strict=True)
    write(root / "manifest.csv", ["image_id", "label", "lesion_id"], *rows)
    listing = read_listing(composed("dataset=csv", f"dataset.root={root}").dataset, root)
    assert listing.notes == (
        "lesion_id is empty for 2 of 4 images: by this column, each of them is its own group.",
    )
    assert list(listing.images["lesion"]) == ["L1", "", "L1", ""]
    assert listing.columns == "manifest.csv: groups by lesion_id."


@pytest.mark.parametrize(
    ("header", "overrides", "lines"),
    [
        (
            {"lesion_id": "L", "case": "P", "Gender": ""},
            [],
            [
                "24 images in 6 groups: ",
                "2 classes: a 12 and b 12",
                "manifest.csv: groups by lesion_id and case; sex from Gender.",
                "Protocol: grouped by lesion_id and case; a group is always in one split",
            ],
        ),
        (
            {},
            [],
            ["  Protocol: ungrouped. The dataset names no lesions or patients: photographs of one"],
        ),
        (
            {"lesion_id": "L"},
            ["dataset.groups=none"],
            ["  Protocol: leaking. Metrics of val and test"],
        ),
    ],
)
def test_the_first_lines_say_classes_columns_and_protocol(
    prepared, capsys, header, overrides, lines
):
    show_data(prepared(header, *overrides))
    said = capsys.readouterr().out
    for line in lines:
        assert line in said
