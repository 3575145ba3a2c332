"""What looks unlike the training images: planted pictures, and real ones of both kinds."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from melanoma_lab.data.decoding import decode_image
from melanoma_lab.evaluation.out_of_distribution import (
    OutOfDistributionDetector,
    extract_colour_and_texture,
    fit_detector,
)

pytestmark = pytest.mark.unit


def patches(colour, n, seed, size=24):
    """Noisy patches about a colour, uint8, each of another brightness."""
    rng = np.random.default_rng(seed)
    light = rng.normal(0, 12, (n, 1, 1, 1))
    pixels = np.asarray(colour) + light + rng.normal(0, 8, (n, size, size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def skin():
    return fit_detector(
        extract_colour_and_texture(patches((200, 140, 120), 300, 0)),
        extract_colour_and_texture(patches((200, 140, 120), 200, 1)),
    )


def test_measures_of_pictures_worked_by_hand():
    flat = np.full((1, 10, 10, 3), (255, 0, 0), np.uint8)
    (found,) = extract_colour_and_texture(flat)
    assert found.shape == (30,)
    # Brightness, red-green and yellow-blue: at the centre, around it, at the edge; then spreads.
    np.testing.assert_allclose(found[:9], [1 / 3, 1, 0.5] * 3, rtol=1e-5)
    np.testing.assert_allclose(found[9:12], 0, atol=1e-6)
    half = np.zeros((1, 48, 48, 3), np.uint8)
    half[:, :, 24:] = 255
    (found,) = extract_colour_and_texture(half)
    steps = np.log(1 / 47 + 2e-4), np.log((1 / 47 + 1e-4) / 1e-4)  # one step of 47, across
    np.testing.assert_allclose(found[[12, 15]], steps, rtol=1e-4)


def test_one_picture_is_measured_as_among_many():
    pixels = patches((90, 90, 90), 5, 2)
    np.testing.assert_allclose(
        extract_colour_and_texture(pixels)[2:3], extract_colour_and_texture(pixels[2:3]), rtol=1e-5
    )


def test_pictures_of_the_same_kind_are_within_the_limit_at_the_rate_it_is_set_for(skin):
    more = skin.relative_distance(patches((200, 140, 120), 1000, 3))
    assert more.dtype == np.float32
    assert 0.001 < (more > 1).mean() < 0.04


@pytest.mark.parametrize("other", [(40, 90, 200), (200, 140, 160), (255, 255, 255)])
def test_pictures_of_another_kind_are_beyond_it(skin, other):
    assert (skin.relative_distance(patches(other, 50, 4)) > 1).all()


def test_few_images_and_measures_that_never_vary():
    black = np.zeros((3, 8, 8, 3), np.uint8)
    with_few = fit_detector(
        extract_colour_and_texture(patches((200, 140, 120), 3, 0)),
        extract_colour_and_texture(patches((200, 140, 120), 1, 1)),
    )
    assert np.isfinite(with_few.relative_distance(black)).all()


def test_it_comes_back_from_its_file(skin):
    again = OutOfDistributionDetector.read(skin.text())
    pixels = patches((150, 140, 120), 9, 5)
    np.testing.assert_array_equal(again.relative_distance(pixels), skin.relative_distance(pixels))
    assert len(skin.text()) < 50_000


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0]},
        {"scale": None},
        {"whitening": "x"},
        {"limit": 0},
        {"limit": float("nan")},
        {"n_val": {}},
    ],
)
def test_a_damaged_file_is_refused(skin, change):
    with pytest.raises(ValueError, match=r"expected finite|missing|convert|literal"):
        OutOfDistributionDetector.read(json.dumps(json.loads(skin.text()) | change))


def test_a_file_that_is_none_and_one_of_another_version():
    for text in ("", "[1]", "3"):
        with pytest.raises(ValueError):  # noqa: PT011 - json's and this module's words
            OutOfDistributionDetector.read(text)
    assert OutOfDistributionDetector.read('{"version": 0}') is None


def test_photographs_that_are_not_dermoscopic_are_told_from_real_lesions(real_ham10000, real_isic9):
    """AUROC 1.000 (0.95 is wanted). Of lesions of another collection 2 % are taken for others.

    That is with 1,500 training and 1,000 validation images; with as few as here it is some 8 %.
    """
    table = pd.read_csv(real_ham10000 / "HAM10000_metadata.csv")
    lesions = table["lesion_id"].drop_duplicates().sample(600, random_state=0)
    images = table.drop_duplicates("lesion_id").set_index("lesion_id").loc[lesions, "image_id"]
    size = 64
    pixels = np.stack(
        [decode_image(str(real_ham10000 / "images" / f"{i}.jpg"), size) for i in images]
    )
    train, val, test = np.split(pixels, [300, 450])
    looks = fit_detector(extract_colour_and_texture(train), extract_colour_and_texture(val))
    rng = np.random.default_rng(0)
    others = np.stack([_crop(photo, size, rng) for photo in load_sample_images().images * 50])
    scores = looks.relative_distance(np.concatenate([test, others]))
    truth = np.arange(len(scores)) >= len(test)
    assert roc_auc_score(truth, scores) > 0.99
    assert (scores[truth] > 1).mean() > 0.95
    assert (scores[~truth] > 1).mean() < 0.05
    files = sorted(map(str, real_isic9.rglob("*.jpg")))[::15]
    elsewhere = looks.relative_distance(np.stack([decode_image(path, size) for path in files]))
    assert (elsewhere > 1).mean() < 0.15


def _crop(photo, size, rng):
    """A square part of a photograph, in which a small lesion would fit."""
    from PIL import Image

    side = int(rng.uniform(0.15, 0.9) * min(photo.shape[:2]))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    part = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
