"""Masks beside photographs are left out, and what the user names."""

import shlex

import pytest

from melanoma_lab.cli.arguments import normalise_arguments
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.image_files import exclude_files

pytestmark = pytest.mark.unit

PHOTOGRAPHS = ("mel/ISIC_1.jpg", "mel/ISIC_2.JPG", "nv/3.png")


def kept(others, *patterns):
    names = [*PHOTOGRAPHS, *others]
    keep, notes = exclude_files(names, patterns)
    return {name for name, yes in zip(names, keep, strict=True) if yes} - {*PHOTOGRAPHS}, notes


@pytest.mark.parametrize(
    "name",
    [
        *("mel/ISIC_1_mask.png", "mel/ISIC_1_segmentation.png", "mel/ISIC_1_superpixels.png"),
        *("mel/ISIC_1_Segmentation.PNG", "mel/ISIC_1-mask.png", "mel/isic_1 mask 2.png"),
        *("mel/ISIC_1_lesion.bmp", "mel/ISIC_1_roi.png", "mel/ISIC_1_seg.png", "mel/ISIC_1_gt.png"),
        *("mel/ISIC_2_contour.png", "masks/ISIC_1.png", "mel/masks/ISIC_1.png", "mask_ISIC_1.png"),
        *("ISIC_Task1_Training_GroundTruth/ISIC_1.png", "x/ISIC_1_attribute_globules.png"),
        *("gone/ISIC_9_superpixels.png", "gone/ISIC_9_binary_mask.png", "nv/3_label1.png"),
        *("mel/ISIC_1Mask.png", "mel/ISIC_1(mask).png", "mel/ISIC_1_mask_final.png"),
        *("mel/ISIC_1_mask_v2.png", "mel/ISIC_1_labels_colored.png", "mel/ISIC_2_masked.png"),
        *("Masks_png/ISIC_1.png", "SegmentationMasks/x.png", "masks (1)/x.png", "gt/ISIC_1.png"),
        *("HAM10000_segmentations_lesion_tschandl/ISIC_1.png", "labels/isic_2.png"),
    ],
)
def test_masks_are_left_out_and_said(name):
    left, notes = kept([name])
    assert left == set()
    assert notes[0].startswith(f"1 file is left out, named like masks: {name}. To keep them: ")
    (word,) = shlex.split(notes[0].partition("To keep them: ")[2])
    assert kept([name], word.split('"')[1])[0] == {name}


@pytest.mark.parametrize(
    "name",
    [
        *("mel/ISIC_1_lesion2.jpg", "lesion/ISIC_1.jpg", "labels/new.jpg"),
        *("mel/back_lesion.jpg", "mel/upper_roi.jpg", "lesion/1.jpg", "mel/unmask.jpg"),
        *("mel/ISIC_1(1).jpg", "mel/ISIC_1_downsampled.jpg", "mel/lesion.jpg", "mel/label7.jpg"),
    ],
)
def test_photographs_are_kept(name):
    assert kept([name]) == ({name}, ())


MASKS = ["mel/ISIC_1_mask.png", "mel/ISIC_2_mask.png"]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["!*_mask.png"], MASKS),
        (["!*.png"], MASKS),
        (["!mel/*"], MASKS),
        (["!*_1_mask*"], MASKS[:1]),
        (["!*_mask.png", "*_2_*"], MASKS[:1]),
        (["*_2_*", "!*_mask.png"], MASKS),
    ],
)
def test_a_pattern_with_an_exclamation_mark_keeps(patterns, left):
    assert kept(MASKS, *patterns)[0] == set(left)


@pytest.mark.parametrize(
    "pattern",
    ["*_old.jpg", "drafts", "drafts/", "DRAFTS/*", "drafts/?_*", " ./drafts/* ", "drafts\\*"],
)
def test_patterns_fit_paths_files_and_folders_in_any_case(pattern):
    left, notes = kept(["drafts/1_old.jpg"], pattern)
    assert left == set()
    assert notes == ("1 file is left out (dataset.exclude): drafts/1_old.jpg.",)


def test_a_pattern_that_fits_nothing_is_said():
    assert kept([], "*.gif")[1] == ("dataset.exclude: no file matches *.gif.",)


def test_nothing_left_is_refused():
    with pytest.raises(UserError, match=r"no images are left\. 1 file is left out, named like"):
        exclude_files(["a/1_mask.png"], [])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("dataset.exclude=*_old.jpg", ["*_old.jpg"]),
        ("dataset.exclude=!*_mask.png,it's (1).jpg", ["!*_mask.png", "it's (1).jpg"]),
        ("dataset.exclude=[a,b]", ["a", "b"]),
    ],
)
def test_patterns_are_typed_as_they_are(composed, typed, meant):
    (word,) = normalise_arguments([typed])
    assert composed(word).dataset.exclude == meant
