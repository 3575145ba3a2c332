"""Images that a model knows: found by file, archive id, pixels and lesion, with their groups."""

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.data.cache import compute_file_digests
from melanoma_lab.data.readers import read_listing
from melanoma_lab.data.split import assign_photographs
from melanoma_lab.inference.external_validation.training_overlap import (
    ARCHIVE,
    GROUP,
    IDENTICAL,
    LESION,
    NEAR,
    assign_image_roles,
)

pytestmark = pytest.mark.unit


def manifest_of(rows):
    """(image_id, digest, lesion) or with a photograph of its own."""
    table = pd.DataFrame(
        [row if len(row) == 4 else (*row, row[1]) for row in rows],
        columns=["image_id", "digest", "lesion", "photograph"],
    ).assign(patient="")
    return table.astype(object)


KNOWN = (
    pd.DataFrame(
        [
            ("t1.jpg", "aa", "L1", "train"),
            ("t2.jpg", "bb", "L2", "train"),
            ("v1.jpg", "cc", "L3", "val"),
            ("e1.jpg", "dd", "L4", "test"),
            ("ISIC_0000007.jpg", "ee", "", "val"),
        ],
        columns=["image_id", "digest", "lesion", "split"],
    )
    .assign(patient="")
    .astype(object)
)


def told(manifest, pairs=(), **how):
    shown = assign_image_roles(manifest, KNOWN, pairs, **how)
    return dict(zip(manifest["image_id"], zip(shown.role, shown.kind, strict=True), strict=True))


def test_every_way_of_knowing():
    manifest = manifest_of(
        [
            ("file.png", "aa", ""),
            ("a/isic_0000007(1).png", "x1", ""),
            ("near.png", "x2", ""),
            ("lesion.png", "x3", "L3"),
            ("tested.png", "x4", "L4"),
            ("new.png", "x5", "L9"),
        ]
    )
    assert told(manifest, [("x2", "bb", 0.9, "cropped")]) == {
        "file.png": ("train", IDENTICAL),
        "a/isic_0000007(1).png": ("val", ARCHIVE),
        "near.png": ("train", NEAR),
        "lesion.png": ("val", LESION),
        "tested.png": ("test", LESION),
        "new.png": ("new", ""),
    }


def test_a_group_shows_what_one_of_it_shows():
    """By lesion to a copy, by photograph on to another lesion's."""
    manifest = manifest_of(
        [
            ("copy.png", "aa", "M1"),
            ("same_lesion.png", "y1", "M1", "p"),
            ("its_crop.png", "y2", "M2", "p"),
            ("other.png", "y3", "M3"),
        ]
    )
    shown = assign_image_roles(manifest, KNOWN, ())
    assert list(shown.kind) == [IDENTICAL, GROUP, GROUP, ""]
    assert list(shown.seen) == [True, True, True, False]
    assert list(shown.splits) == ["train", "train", "train", "test"]
    assert shown.counts() == {IDENTICAL: 1, GROUP: 2}
    assert list(shown.links["image_id"]) == ["copy.png"]


def test_training_weighs_more_than_choosing_and_both_more_than_testing():
    manifest = manifest_of([("a.png", "cc", "L2"), ("b.png", "dd", "L3"), ("c.png", "z", "L4")])
    assert told(manifest) == {
        "a.png": ("train", LESION),
        "b.png": ("val", LESION),
        "c.png": ("test", LESION),
    }
    links = assign_image_roles(manifest, KNOWN, ()).links
    assert links[links["image_id"] == "a.png"][["other", "role", "kind"]].to_numpy().tolist() == [
        ["v1.jpg", "val", IDENTICAL],
        ["t2.jpg", "train", LESION],
    ]


def test_lesions_that_are_only_called_alike():
    manifest = manifest_of([("a.png", "z", "L1")])
    assert told(manifest) == {"a.png": ("train", LESION)}
    assert told(manifest, lesions=False) == {"a.png": ("new", "")}


def test_nothing_unknown_is_taken_for_equal():
    known = KNOWN.assign(lesion="", digest="")
    manifest = manifest_of([("a.png", "", ""), ("b.png", "q", "")])
    assert list(assign_image_roles(manifest, known, ()).role) == ["new", "new"]


def test_some_of_the_images():
    manifest = manifest_of([("a.png", "aa", ""), ("b.png", "q", "")])
    some = assign_image_roles(manifest, KNOWN, ()).of(np.array([1]))
    assert list(some.role) == ["new"]


def test_the_two_real_datasets_share_photographs(composed, real_ham10000, real_isic9, tmp_path):
    """Without pixels: none of the files are the same, but the archive's ids and lesions are."""
    theirs = read_listing(
        composed("dataset=ham10000", f"dataset.root={real_ham10000}").dataset, tmp_path
    ).images
    own = read_listing(
        composed("dataset=isic9_verified", f"dataset.root={real_isic9}").dataset, tmp_path
    ).images
    some = own.iloc[::20].reset_index(drop=True)
    digests = compute_file_digests(list(some["path"]), 1)
    manifest = some.assign(digest=digests, photograph=assign_photographs(digests, _no_pairs()))
    known = theirs.assign(digest="", split="train")
    shown = assign_image_roles(manifest, known, ())
    assert 0.4 < shown.seen.mean() < 0.8
    ids = {path.rpartition("/")[2] for path in theirs["image_id"]}
    by_name = some["image_id"].str.rpartition("/")[2].isin(ids).to_numpy()
    assert (shown.kind[by_name] == ARCHIVE).all()
    assert (shown.role[by_name] == "train").all()
    assert set(shown.kind[~by_name]) <= {"", ARCHIVE, LESION, GROUP}


def _no_pairs():
    return pd.DataFrame({"first": [], "second": []})


@pytest.mark.parametrize("pairs", [[], [("zz", "aa", 1.0, "x")]])
def test_pairs_of_other_images_say_nothing(pairs):
    assert told(manifest_of([("a.png", "q", "")]), pairs) == {"a.png": ("new", "")}
