import pandas as pd
import pytest

from melanoma_lab.config.schema.data import LabelSource, OnConflict
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.labels import check_class_names, resolve_labels

pytestmark = pytest.mark.unit

MANIFEST = pd.DataFrame(
    [
        # Identical, labelled differently, and the archive says melanoma.
        ("1", "melanoma", "melanoma", "same"),
        ("2", "keratosis", "melanoma", "same"),
        # Identical, labelled differently, and the archive says nothing.
        ("3", "melanoma", "", "lost"),
        ("4", "keratosis", "", "lost"),
        # Alone, labelled against the archive.
        ("5", "nevus", "keratosis", "own"),
        ("6", "nevus", "nevus", "fine"),
    ],
    columns=["image_id", "label", "diagnosis", "identical"],
).assign(photograph=lambda table: table["identical"])


def settle(conflicts, labels=LabelSource.folder, classes=None, manifest=MANIFEST):
    return resolve_labels(manifest, labels=labels, conflicts=conflicts, classes=classes)


def labels_of(settled):
    return dict(zip(settled.manifest["image_id"], settled.manifest["label"], strict=True))


def test_conflicts_are_refused_with_the_choices():
    with pytest.raises(UserError) as caught:
        settle(OnConflict.error)
    text = str(caught.value)
    assert "4 images in 2 groups" in text
    assert "1 and 2" in text
    assert all(choice in text for choice in ("keep", "drop", "relabel"))


def test_keep_leaves_them_as_published():
    settled = settle(OnConflict.keep)
    assert labels_of(settled) == dict(zip("123456", MANIFEST["label"], strict=True))
    assert "kept as published" in settled.notes[0]


def test_drop_leaves_out_the_whole_group():
    other = MANIFEST.assign(label=[*MANIFEST["label"][:5], "melanoma"])
    settled = settle(OnConflict.drop, manifest=other)
    assert labels_of(settled) == {"5": "nevus", "6": "melanoma"}
    assert "left out" in settled.notes[0]


NEAR = MANIFEST.assign(identical=MANIFEST["image_id"])


def test_near_duplicates_are_noted_where_identical_images_would_be_refused():
    settled = settle(OnConflict.error, manifest=NEAR)
    assert len(settled.manifest) == 6
    assert "4 images in 2 groups are copies of one photograph" in settled.notes[0]
    assert "kept" in settled.notes[0]


def test_near_duplicates_are_relabelled_and_dropped_like_identical_images():
    settled = settle(OnConflict.relabel, manifest=NEAR)
    assert labels_of(settled) == {"1": "melanoma", "2": "melanoma", "5": "nevus", "6": "nevus"}
    other = NEAR.assign(label=[*NEAR["label"][:5], "melanoma"])
    assert labels_of(settle(OnConflict.drop, manifest=other)) == {"5": "nevus", "6": "melanoma"}


def test_one_class_is_not_enough():
    with pytest.raises(UserError, match="only one class, 'nevus'"):
        settle(OnConflict.drop)


def test_relabel_takes_the_diagnosis_and_drops_where_there_is_none():
    settled = settle(OnConflict.relabel)
    assert labels_of(settled) == {"1": "melanoma", "2": "melanoma", "5": "nevus", "6": "nevus"}
    assert "2 got the metadata's diagnosis, 2 without one were left out" in settled.notes[0]


def test_contradicting_diagnoses_settle_nothing():
    manifest = MANIFEST.assign(diagnosis=["melanoma", "keratosis", "", "", "", "nevus"])
    manifest.loc[4, "label"] = "melanoma"
    settled = settle(OnConflict.relabel, manifest=manifest)
    assert labels_of(settled) == {"5": "melanoma", "6": "nevus"}


def test_the_archive_counts_before_conflicts_are_looked_for():
    settled = settle(OnConflict.drop, LabelSource.diagnosis)
    assert labels_of(settled) == {
        "1": "melanoma",
        "2": "melanoma",
        "5": "keratosis",
        "6": "nevus",
    }


def test_classes_keep_their_order_and_leave_others_out():
    settled = settle(OnConflict.keep, classes=["nevus", "melanoma"])
    assert settled.classes == ("nevus", "melanoma")
    assert set(labels_of(settled).values()) == {"nevus", "melanoma"}
    left_out = "images left out, because their classes are not in dataset.classes: 'keratosis' (2)."
    assert f"2 {left_out}" in settled.notes


def test_found_classes_are_sorted():
    assert settle(OnConflict.keep).classes == ("keratosis", "melanoma", "nevus")


def test_a_class_without_images_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no image of class 'nevi'\. Did you mean nevus\?"):
        settle(OnConflict.keep, classes=["nevi", "melanoma"])


@pytest.mark.parametrize(
    ("classes", "positive", "message"),
    [
        (["nevus", "???"], None, "has no letters or digits"),
        (["nevus", "n" * 300], None, "too long to name a metric by"),
        (["basal cell", "Basal-cell"], None, "would share the column prob/basal_cell"),
        (["macro", "nevus"], "Macro", "its metrics would have the names of others"),
        (["melanoma", "nevus"], "melanom", r"no such class\. Did you mean melanoma\?"),
    ],
)
def test_class_names_that_cannot_name_a_metric_are_refused(classes, positive, message):
    with pytest.raises(UserError, match=message):
        check_class_names(classes, positive)


@pytest.mark.parametrize("positive", [None, "", "Basal cell", "basal_cell"])
def test_a_positive_class_may_be_named_by_its_slug(positive):
    check_class_names(["basal cell", "nevus"], positive)
