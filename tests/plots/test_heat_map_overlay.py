"""A map laid over its image: what stays visible, and what reads without colours."""

import numpy as np
import pytest

from melanoma_lab.plots.grad_cam import overlay_heat_map

pytestmark = pytest.mark.unit

SIDE = 24


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def luma(pixels):
    return pixels @ np.array([0.299, 0.587, 0.114])


def ramp():
    return np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))


def test_where_nothing_was_found_the_image_is_grey(pixels):
    shown = overlay_heat_map(pixels, np.zeros((SIDE, SIDE)))
    assert shown.dtype == np.uint8
    assert shown.shape == pixels.shape
    np.testing.assert_array_equal(shown, shown[..., :1].repeat(3, axis=2))
    np.testing.assert_allclose(shown[..., 0], luma(pixels), atol=0.51)


def test_light_and_dark_stay_visible_under_the_highest_places():
    dark, light = (np.full((SIDE, SIDE, 3), level, np.uint8) for level in (40, 220))
    heat = np.ones((SIDE, SIDE))
    assert (luma(overlay_heat_map(light, heat)) - luma(overlay_heat_map(dark, heat))).min() > 50


def test_higher_is_lighter_for_who_sees_no_colours():
    grey = luma(overlay_heat_map(np.full((SIDE, SIDE, 3), 60, np.uint8), ramp()))
    beside_the_line = np.delete(grey, SIDE // 2, axis=1)
    assert beside_the_line[:, -1].min() > beside_the_line[:, 0].max() + 40
    # From half of the highest on it rises throughout: the part that a reader looks for.
    assert (np.diff(beside_the_line[0, SIDE // 2 :]) > 0).all()


def test_a_line_is_drawn_where_half_of_the_highest_begins(pixels):
    shown = overlay_heat_map(pixels // 2, ramp())
    white = (shown == 255).all(axis=2)
    assert white[:, SIDE // 2].all()
    assert white.sum() == SIDE


def test_what_does_not_fit_is_refused(pixels):
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        overlay_heat_map(pixels, np.zeros((SIDE, SIDE + 1)))
