import pandas as pd
import pytest

from melanoma_lab.config.schema.data import Ham10000Dataset, Isic9Dataset
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.folder_reader import read_class_folders
from melanoma_lab.data.image_files import describe_outside_links, find_outside_links
from melanoma_lab.data.listing import LISTING_COLUMNS, UnmatchedImages
from melanoma_lab.data.readers import read_listing
from tests.support.pictures import paint

pytestmark = pytest.mark.unit

DIAGNOSES = {"MEL": ["melanoma"], "BKL": ["pigmented", "seborrheic"], "AK": ["actinic"]}


@pytest.fixture
def isic(tmp_path):
    """A folder like the published one: file names repeat across classes."""
    for image_id in (
        "Train/melanoma/ISIC_1.jpg",
        "Train/melanoma/ISIC_1(1).jpg",
        "Train/seborrheic/ISIC_2.jpg",
        "Train/nevus/ISIC_3.jpg",
        "Test/nevus/ISIC_1.jpg",
        "Test/pigmented/ISIC_5.jpg",
    ):
        paint(tmp_path / image_id, (200, 90, 40), seed=len(image_id))
    (tmp_path / "metadata.csv").write_text(
        "image_id,lesion_id,isic2019,isic2017,source\n"
        "ISIC_1,L7,MEL,nv,HAM10000\nISIC_2,,BKL,,other\nISIC_3,L7,AK,,other\n"
    )
    return tmp_path


def isic_config(root, **changes):
    return Isic9Dataset(
        name="isic9",
        root=str(root),
        diagnosis_columns=["isic2019", "isic2017"],
        diagnoses=DIAGNOSES,
        **changes,
    )


def column(table, name):
    return dict(zip(table["image_id"], table[name], strict=True))


def test_image_ids_are_relative_paths_and_labels_their_folders(isic):
    table = read_listing(isic_config(isic), isic).images
    assert tuple(table.columns) == LISTING_COLUMNS
    assert list(table["image_id"]) == sorted(table["image_id"])
    assert column(table, "label")["Train/melanoma/ISIC_1(1).jpg"] == "melanoma"
    assert column(table, "published")["Test/nevus/ISIC_1.jpg"] == "test"
    assert column(table, "published")["Train/nevus/ISIC_3.jpg"] == "train"


def test_files_of_one_archive_id_are_one_lesion_and_lesions_are_the_archives(isic):
    lesion = column(read_listing(isic_config(isic), isic).images, "lesion")
    assert lesion["Train/melanoma/ISIC_1.jpg"] == lesion["Train/melanoma/ISIC_1(1).jpg"] == "L7"
    assert lesion["Test/nevus/ISIC_1.jpg"] == lesion["Train/nevus/ISIC_3.jpg"] == "L7"
    assert lesion["Train/seborrheic/ISIC_2.jpg"] == "ISIC_2"
    assert lesion["Test/pigmented/ISIC_5.jpg"] == "ISIC_5"


def test_diagnoses_come_from_the_most_trusted_column(isic):
    diagnosis = column(read_listing(isic_config(isic), isic).images, "diagnosis")
    assert diagnosis["Test/nevus/ISIC_1.jpg"] == "melanoma"  # isic2019 before isic2017
    assert diagnosis["Train/seborrheic/ISIC_2.jpg"] == "seborrheic"  # a code that covers the label
    assert diagnosis["Train/nevus/ISIC_3.jpg"] == "actinic"
    assert diagnosis["Test/pigmented/ISIC_5.jpg"] == ""


def test_a_code_stands_for_the_first_class_that_the_dataset_has(isic):
    config = isic_config(isic, classes=["melanoma", "pigmented", "actinic"])
    diagnosis = column(read_listing(config, isic).images, "diagnosis")
    assert diagnosis["Train/seborrheic/ISIC_2.jpg"] == "pigmented"


def test_the_table_may_be_absent(isic):
    assert read_listing(isic_config(isic), isic).grouped_by == ("lesion_id",)
    (isic / "metadata.csv").unlink()
    assert read_listing(isic_config(isic), isic).grouped_by == ()
    table = read_listing(isic_config(isic), isic).images
    assert set(table["diagnosis"]) == {""}
    lesion = column(table, "lesion")
    assert lesion["Train/melanoma/ISIC_1.jpg"] == lesion["Test/nevus/ISIC_1.jpg"]


def test_an_image_id_that_is_there_twice_is_refused(isic):
    with (isic / "metadata.csv").open("a") as table:
        table.write("ISIC_1,L8,NV,,other\n")
    with pytest.raises(UserError, match=r"ISIC_1 occurs twice, with lesion .* and L8"):
        read_listing(isic_config(isic), isic)


def test_names_in_the_table_without_an_image_are_told(isic):
    config = isic_config(isic)
    assert read_listing(config, isic).unmatched.missing == ()
    with (isic / "metadata.csv").open("a") as table:
        table.write("ISIC_8,,NV,,other\nISIC_7,,NV,,other\n")
    unmatched = read_listing(config, isic).unmatched
    assert unmatched == UnmatchedImages("metadata.csv", missing=("ISIC_7", "ISIC_8"))
    assert read_listing(isic_config(isic), isic).grouped_by == ("lesion_id",)
    (isic / "metadata.csv").unlink()
    assert read_listing(isic_config(isic), isic).grouped_by == ()
    assert read_listing(config, isic).unmatched == UnmatchedImages()


@pytest.fixture
def ham(tmp_path):
    for name in ("ISIC_1", "ISIC_2", "ISIC_9"):
        paint(tmp_path / "images" / f"{name}.jpg", (200, 90, 40), seed=1)
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx\nL1,ISIC_1,mel\nL1,ISIC_2,mel\nL2,ISIC_3,nv\n"
    )
    return tmp_path


def ham_config(root, **changes):
    diagnoses = {"mel": "melanoma", "nv": "nevus"}
    return Ham10000Dataset(
        **{"name": "ham10000", "root": str(root), "diagnoses": diagnoses} | changes
    )


def test_ham10000_takes_images_that_are_there_and_in_the_table(ham):
    table = read_listing(ham_config(ham), ham).images
    assert list(table["image_id"]) == ["images/ISIC_1.jpg", "images/ISIC_2.jpg"]
    assert set(table["label"]) == {"melanoma"}
    assert set(table["lesion"]) == {"L1"}


def test_ham10000_tells_what_only_the_table_or_only_the_folder_has(ham):
    unmatched = read_listing(ham_config(ham), ham).unmatched
    assert unmatched.missing == ("ISIC_3",)
    assert unmatched.unlisted == ("images/ISIC_9.jpg",)


def test_ham10000_needs_its_table(ham):
    (ham / "HAM10000_metadata.csv").unlink()
    with pytest.raises(UserError, match=r"no HAM10000_metadata\.csv"):
        read_listing(ham_config(ham), ham)


def test_ham10000_needs_the_columns(ham):
    (ham / "HAM10000_metadata.csv").write_text("image_id,dx\nISIC_1,mel\n")
    with pytest.raises(UserError, match=r"no column lesion_id\. It has image_id and dx"):
        read_listing(ham_config(ham), ham)


def test_ham10000_needs_a_class_for_every_diagnosis(ham):
    with pytest.raises(UserError, match=r"dx nv is not in dataset\.diagnoses"):
        read_listing(ham_config(ham, diagnoses={"mel": "melanoma"}), ham)


def test_a_tree_may_lie_deeper_and_hidden_files_do_not_count(tmp_path):
    paint(tmp_path / "set" / "val" / "nevus" / "a.PNG", (9, 9, 9), seed=0)
    paint(tmp_path / "set" / "train" / "nevus" / "b.jpeg", (9, 9, 9), seed=0)
    paint(tmp_path / "set" / "train" / "nevus" / "._b.jpeg", (9, 9, 9), seed=0)
    paint(tmp_path / ".thumbnails" / "nevus" / "c.png", (9, 9, 9), seed=0)
    (tmp_path / "set" / "train" / "nevus" / "notes.txt").write_text("not an image")
    table = read_class_folders(tmp_path).images
    assert column(table, "published") == {
        "set/train/nevus/b.jpeg": "train",
        "set/val/nevus/a.PNG": "val",
    }


def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    path = paint(tmp_path / "nevus" / "a.png", (9, 9, 9), seed=0)
    path.rename(path.with_name("caf\udce9.png"))
    with pytest.raises(UserError, match=r"nevus/caf\\udce9\.png: this name is not UTF-8"):
        read_class_folders(tmp_path)


def test_files_of_one_name_are_not_one_lesion_unless_the_archive_named_them(isic):
    for part in ("Train", "Test"):
        paint(isic / part / "nevus" / "1.jpg", (9, 9, 9), seed=1)
    lesion = column(read_listing(isic_config(isic), isic).images, "lesion")
    assert lesion["Train/nevus/1.jpg"] == lesion["Test/nevus/1.jpg"] == ""
    with (isic / "metadata.csv").open("a") as table:
        table.write("1,,NV,,other\n")
    lesion = column(read_listing(isic_config(isic), isic).images, "lesion")
    assert lesion["Train/nevus/1.jpg"] == lesion["Test/nevus/1.jpg"] == "1"


def test_links_that_loop_or_leave_the_root_are_not_followed(tmp_path):
    outside = paint(tmp_path / "outside" / "nevus" / "x.png", (9, 9, 9), seed=0)
    kept = paint(tmp_path / "root" / "nevus" / "a.png", (9, 9, 9), seed=1)
    (tmp_path / "root" / "nevus" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "other").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "nevus" / "b.png").symlink_to(outside)
    (tmp_path / "root" / "nevus" / "c.png").symlink_to(kept)
    assert list(read_class_folders(tmp_path / "root").images["image_id"]) == [
        "nevus/a.png",
        "nevus/c.png",
    ]
    assert find_outside_links(tmp_path / "root") == ["nevus/b.png", "other"]
    (said,) = describe_outside_links(tmp_path / "root")
    assert said.startswith("2 links (nevus/b.png...) lead out of dataset.root: not followed")
    assert describe_outside_links(tmp_path / "outside") == []


def test_links_out_of_the_root_are_followed_with_leave(tmp_path):
    outside = paint(tmp_path / "outside" / "nevus" / "x.png", (9, 9, 9), seed=0)
    (tmp_path / "outside" / "nevus" / "loop").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "home").symlink_to(tmp_path / "root")
    paint(tmp_path / "root" / "melanoma" / "a.png", (9, 9, 9), seed=1)
    (tmp_path / "root" / "site").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "melanoma" / "b.png").symlink_to(outside)
    found = read_class_folders(tmp_path / "root", outside_root=True).images["image_id"]
    assert list(found) == ["melanoma/a.png", "melanoma/b.png", "site/nevus/x.png"]


def test_a_link_to_nothing_is_left_to_the_decoder(tmp_path):
    paint(tmp_path / "nevus" / "a.png", (9, 9, 9), seed=1)
    (tmp_path / "nevus" / "b.png").symlink_to(tmp_path / "nevus" / "gone.png")
    assert list(read_class_folders(tmp_path).images["image_id"]) == ["nevus/a.png", "nevus/b.png"]


@pytest.mark.parametrize("image_id", ["a.png", "Train/a.png"])
def test_an_image_in_no_class_folder_is_refused(tmp_path, image_id):
    paint(tmp_path / image_id, (9, 9, 9), seed=0)
    with pytest.raises(UserError, match=f"{image_id} lies in no class folder"):
        read_class_folders(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.write_text("x"), "a file; expected the folder of the images"),
        (lambda root: root.mkdir(), "no images in it"),
    ],
)
def test_a_root_that_is_none_is_refused(composed, tmp_path, make, message):
    root = tmp_path / "root"
    make(root)
    for dataset in ("folder", "isic9"):
        with pytest.raises(UserError, match=message):
            read_listing(composed(f"dataset={dataset}", f"dataset.root={root}").dataset, tmp_path)


def test_a_root_that_is_not_set_is_asked_for(composed, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.root is not set: add dataset\.root=DIR"):
        read_listing(composed("dataset=ham10000").dataset, tmp_path)


def test_the_real_folder(composed, real_isic9, tmp_path):
    dataset = composed("dataset=isic9", f"dataset.root={real_isic9}").dataset
    table = read_listing(dataset, tmp_path).images
    assert len(table) == 2359
    assert table["published"].value_counts().to_dict() == {"train": 2241, "test": 118}
    assert table["label"].nunique() == 9
    disagree = (table["diagnosis"] != "") & (table["diagnosis"] != table["label"])
    counts = pd.crosstab(table["label"][disagree], table["diagnosis"][disagree])
    assert counts.loc["nevus", "actinic keratosis"] == 76
    assert counts.loc["seborrheic keratosis", "melanoma"] == 26


def test_real_ham10000(composed, real_ham10000, tmp_path):
    config = composed("dataset=ham10000", f"dataset.root={real_ham10000}").dataset
    table = read_listing(config, tmp_path).images
    assert (len(table), table["lesion"].nunique()) == (10015, 7470)
    assert sorted(set(table["label"])) == sorted(config.classes)
    assert table["age"].isna().sum() == 57 + 39  # blank, and 0
    assert table["age"].min() == 5
    assert table["sex"].value_counts().to_dict() == {"male": 5406, "female": 4552, "": 57}
    assert (table["site"] == "").sum() == 234
    assert table["site"].nunique() == 1 + 14
