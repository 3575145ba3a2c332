import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from melanoma_lab.models.augmentation_layers import LUMINANCE, RandomColour, recolour

pytestmark = pytest.mark.component

PIXELS = np.random.default_rng(0).integers(40, 200, (4, 12, 12, 3)).astype("float32")
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "turn": 0.0}


def recoloured(pixels=PIXELS, **factors):
    each = {k: np.full(len(pixels), v, "float32") for k, v in (NEUTRAL | factors).items()}
    return keras.ops.convert_to_numpy(recolour(pixels, **each))


def test_neutral_factors_change_nothing():
    np.testing.assert_allclose(recoloured(), PIXELS, atol=1e-3)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_factors_are_pillows(name, enhance, factor):
    expected = [enhance(Image.fromarray(x)).enhance(factor) for x in PIXELS.astype("uint8")]
    # Pillow rounds the grey level and the answer down to whole numbers.
    np.testing.assert_allclose(
        recoloured(**{name: factor}), np.stack([np.asarray(x) for x in expected]), atol=2
    )


def test_hue_turns_the_colours_and_leaves_luminance():
    turned = recoloured(turn=1.0)
    assert np.abs(turned - PIXELS).mean() > 5
    inside = ((turned > 0) & (turned < 255)).all(axis=-1)
    np.testing.assert_allclose((turned @ LUMINANCE)[inside], (PIXELS @ LUMINANCE)[inside], atol=0.3)
    np.testing.assert_allclose(recoloured(turn=2 * np.pi), PIXELS, atol=1e-2)


def test_values_stay_in_range():
    extreme = recoloured(255 * (PIXELS > 120), brightness=1.9, contrast=1.9, saturation=2.0)
    assert extreme.min() >= 0
    assert extreme.max() <= 255


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_every_strength_does_something_of_its_own(name):
    none = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    layer = RandomColour(**none | {name: 0.3}, seed=0)
    equal = np.stack([PIXELS[0]] * 4)
    changed = keras.ops.convert_to_numpy(layer(equal, training=True))
    assert np.abs(changed - equal).max() > 3
    # Brightness and contrast move the mean or the spread; no two images alike.
    assert len({float(x.std()) for x in changed}) == 4
