import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from melanoma_lab.config.schema.training_images import RAND_AUGMENT_OPERATIONS
from melanoma_lab.models.rand_augment import OPERATIONS, RandAugmentLayer

pytestmark = pytest.mark.component

RNG = np.random.default_rng(0)
# Smooth, with a channel that is nearly flat, as skin is.
IMAGE = np.stack(
    [np.add.outer(np.arange(24) * 4, np.arange(24) * 3), RNG.integers(60, 200, (24, 24)),
     RNG.integers(118, 122, (24, 24))], axis=-1
).astype("uint8")  # fmt: skip


def done(name, level, image=IMAGE):
    operation = OPERATIONS[name](keras.ops.cast(image, "float32"), np.float32(level))
    return keras.ops.convert_to_numpy(operation)


def test_the_schema_names_what_there_is():
    assert tuple(OPERATIONS) == RAND_AUGMENT_OPERATIONS


@pytest.mark.parametrize(
    ("name", "level", "pillow"),
    [
        ("identity", 1.0, lambda x: x),
        ("autocontrast", 1.0, ImageOps.autocontrast),
        ("equalize", 1.0, ImageOps.equalize),
        ("posterize", 0.5, lambda x: ImageOps.posterize(x, 6)),
        ("posterize", -1.0, lambda x: ImageOps.posterize(x, 4)),
        ("solarize", 0.5, lambda x: ImageOps.solarize(x, 127.5)),
        ("brightness", 0.5, lambda x: ImageEnhance.Brightness(x).enhance(1.45)),
        ("brightness", -0.5, lambda x: ImageEnhance.Brightness(x).enhance(0.55)),
        ("colour", 0.5, lambda x: ImageEnhance.Color(x).enhance(1.45)),
        ("contrast", -0.5, lambda x: ImageEnhance.Contrast(x).enhance(0.55)),
        ("sharpness", 1.0, lambda x: ImageEnhance.Sharpness(x).enhance(1.9)),
        ("sharpness", -1.0, lambda x: ImageEnhance.Sharpness(x).enhance(0.1)),
    ],
)
def test_operations_are_pillows(name, level, pillow):
    expected = np.asarray(pillow(Image.fromarray(IMAGE))).astype(float)
    exact = name in {"identity", "equalize", "posterize", "solarize"}
    # Pillow rounds on its way; equalize, posterize and solarize are whole numbers here too.
    np.testing.assert_allclose(done(name, level), expected, atol=0 if exact else 2)


def test_a_flat_image_is_left_alone_by_what_stretches():
    flat = np.full((8, 8, 3), 90)
    np.testing.assert_array_equal(done("autocontrast", 1, flat), flat)
    np.testing.assert_array_equal(done("equalize", 1, flat), flat)


@pytest.mark.parametrize(
    "name",
    ["shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "sharpness"],
)
def test_signed_operations_have_two_directions(name):
    assert not np.allclose(done(name, 0.6), done(name, -0.6))
    np.testing.assert_allclose(done(name, 0.0), IMAGE, atol=1e-3)


def test_translation_is_a_share_of_the_side():
    level = 331 / 150 / 4  # a quarter
    np.testing.assert_allclose(done("translate_x", level)[:, :18], IMAGE[:, 6:], atol=1e-2)
    np.testing.assert_allclose(done("translate_y", level)[:18], IMAGE[6:], atol=1e-2)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_range_is_kept_and_no_corner_is_painted(name):
    for level in (-1, 1):
        for image in (IMAGE, np.full((16, 16, 3), 255)):
            changed = done(name, level, image)
            assert changed.min() >= 0
            assert changed.max() <= 255
    if name.startswith(("shear", "translate", "rotate")):
        assert done(name, 1, np.full((16, 16, 3), 255)).min() > 254.9


def test_each_image_gets_operations_of_its_own():
    layer = RandAugmentLayer(per_image=1, magnitude=30, operations=list(OPERATIONS), seed=0)
    batch = np.stack([IMAGE] * 60).astype("float32")
    changed = keras.ops.convert_to_numpy(layer(batch, training=True))
    expected = [done(name, level) for name in OPERATIONS for level in (-1, 1)]
    found = {int(np.argmin([np.abs(x - e).max() for e in expected])) // 2 for x in changed}
    assert len(found) > 10  # of 14
    for image in changed:
        assert min(np.abs(image - e).max() for e in expected) < 0.01


def test_the_number_of_operations_and_their_strength_matter():
    batch = np.stack([IMAGE] * 8).astype("float32")

    def change(**options):
        chosen = {"per_image": 1, "magnitude": 10, "operations": ["posterize", "rotate"]} | options
        layer = RandAugmentLayer(**chosen, seed=0)
        return np.abs(keras.ops.convert_to_numpy(layer(batch, training=True)) - batch).mean()

    assert change(magnitude=30) > 1.5 * change()
    assert change(per_image=3) > change()
    assert change(magnitude=0) < 1e-3
