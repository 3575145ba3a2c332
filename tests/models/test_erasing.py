import keras
import numpy as np
import pytest

from melanoma_lab.models.augmentation_layers import RandomErasing

pytestmark = pytest.mark.component

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3)).astype("float32")


def erased(**options):
    layer = RandomErasing(**{"share": 1.0, "area": (0.1, 0.2)} | options, seed=0)
    changed = keras.ops.convert_to_numpy(layer(PIXELS, training=True))
    return changed, (changed != PIXELS).any(axis=-1)


def test_the_rectangle_has_the_images_mean_colour_and_the_rest_is_untouched():
    changed, mask = erased()
    for image, before, hidden in zip(changed, PIXELS, mask, strict=True):
        assert np.allclose(image[hidden], before.mean((0, 1)), rtol=1e-4)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        # A whole rectangle: no hole, no corner missing.
        assert hidden.sum() == len(rows) * len(columns)
        assert np.ptp(rows) + 1 == len(rows)


def test_its_area_is_between_the_limits_and_its_place_anywhere():
    _, mask = erased()
    area = mask.mean(axis=(1, 2))
    assert area.min() > 0.05
    assert area.max() < 0.25
    assert abs(area.mean() - 0.15) < 0.01
    assert mask.any(axis=0)[4:-4, 4:-4].all()
    assert mask[:, 0].any()
    assert mask[:, :, -1].any()


def test_as_many_images_as_asked_are_erased():
    _, mask = erased(share=0.5)
    assert 0.4 < mask.any(axis=(1, 2)).mean() < 0.6
    assert not erased(share=0.0)[1].any()
