import keras
import numpy as np
import pytest

from melanoma_lab.models.augmentation_layers import (
    RandomAffine,
    apply_affine,
    build_affine_transform,
    build_linear_part,
)

pytestmark = pytest.mark.component

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 8, 8, 3)).astype("float32")


def transformed(pixels, *, angle=0.0, scale=1.0, signs=(1, 1), shifts=(0, 0)):
    b, height, width, _ = pixels.shape

    def each(value):
        return np.full(b, value, "float32")

    linear = build_linear_part(
        each(np.radians(angle)), each(scale), np.stack([each(s) for s in signs])
    )
    transform = build_affine_transform(
        linear=linear, shifts=np.stack([each(s) for s in shifts]), height=height, width=width
    )
    return keras.ops.convert_to_numpy(apply_affine(pixels, transform))


def test_no_change_is_exact():
    np.testing.assert_array_equal(transformed(PIXELS), PIXELS)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"signs": (-1, 1)}, PIXELS[:, :, ::-1]),
        ({"signs": (1, -1)}, PIXELS[:, ::-1]),
        ({"angle": 180}, PIXELS[:, ::-1, ::-1]),
        ({"angle": 90}, np.rot90(PIXELS, 1, axes=(1, 2))),
        ({"angle": -90}, np.rot90(PIXELS, -1, axes=(1, 2))),
    ],
)
def test_flips_and_right_angles_are_numpys(how, expected):
    np.testing.assert_allclose(transformed(PIXELS, **how), expected, atol=0.01)


def test_a_crop_is_enlarged_to_the_whole():
    ramp = np.broadcast_to(np.arange(9, dtype="float32")[:, None], (1, 9, 9, 3)).copy()
    ramp[..., 0] = np.arange(9)[:, None]  # grows downwards
    half = transformed(ramp, scale=0.5)[0, :, 0, 0]
    np.testing.assert_allclose(half, np.linspace(2, 6, 9), atol=1e-4)
    lower = transformed(ramp, scale=0.5, shifts=(0, 0.5))[0, :, 0, 0]
    np.testing.assert_allclose(lower, np.linspace(4, 8, 9), atol=1e-4)


def test_corners_are_mirrored_and_not_painted():
    white = np.full((1, 32, 32, 3), 255, "float32")
    assert transformed(white, angle=45).min() == 255


def picked(**strength):
    """Where 200 equal pictures of their own coordinates were taken from, and with which axes."""
    columns, rows = np.meshgrid(np.arange(33.0), np.arange(33.0))
    picture = np.stack([columns, rows, 0 * rows], axis=-1).astype("float32")
    options = {"flip": False, "rotation": 0, "crop": 1.0} | strength
    layer = RandomAffine(**options, seed=0)
    out = keras.ops.convert_to_numpy(layer(np.stack([picture] * 200), training=True))
    middle = out[:, 16, 16, :2]
    right = out[:, 16, 17, :2] - middle
    down = out[:, 17, 16, :2] - middle
    return middle, right, down


def test_flips_are_half_of_the_time_and_independent():
    _, right, down = picked(flip=True)
    mirrored, upside_down = right[:, 0] < 0, down[:, 1] < 0
    assert 0.4 < mirrored.mean() < 0.6
    assert 0.4 < upside_down.mean() < 0.6
    assert 0.15 < (mirrored & upside_down).mean() < 0.35


def test_rotation_covers_the_circle_and_keeps_lengths():
    _, right, _ = picked(rotation=180)
    np.testing.assert_allclose(np.hypot(*right.T), 1, atol=1e-3)
    angles = np.degrees(np.arctan2(right[:, 1], right[:, 0]))
    quarter = np.histogram(angles, bins=[-180, -90, 0, 90, 180])[0]
    assert quarter.sum() == 200
    assert quarter.min() > 30


def test_rotation_stays_within_its_limit():
    _, right, _ = picked(rotation=20)
    angles = np.degrees(np.arctan2(right[:, 1], right[:, 0]))
    assert 15 < np.abs(angles).max() <= 20.01


def test_a_crop_keeps_the_share_of_the_area_and_lies_inside():
    middle, right, down = picked(crop=0.4)
    area = right[:, 0] * down[:, 1]
    assert 0.4 <= area.min() + 1e-3 < 0.42
    assert 0.98 < area.max() <= 1.001
    assert abs(area.mean() - 0.7) < 0.05
    reach = 16 * np.sqrt(area)[:, None]
    assert (middle - reach >= -1e-2).all()
    assert (middle + reach <= 32 + 1e-2).all()
    assert np.ptp(middle, axis=0).min() > 5
