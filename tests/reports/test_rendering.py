"""A chart's file: small, the same whenever it is drawn, and what was drawn."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from melanoma_lab.reports.rendering import COLOURS, DPI, break_arm_name, encode_png

pytestmark = pytest.mark.unit


def chart():
    """Lines, words and a map of every shade of blue."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1, 2], [3, 1, 2], label="baseline")
    left.plot([0, 1, 2], [1, 2, 3], label="augmented")
    left.legend()
    right.imshow(np.linspace(0, 1, 400).reshape(20, 20), cmap="Blues")
    right.set_title("Balanced accuracy")
    return figure


def test_a_chart_is_small_and_the_same_bytes_whenever_it_is_drawn():
    png, whole = encode_png(chart()), BytesIO()
    chart().savefig(whole, dpi=DPI)
    assert png == encode_png(chart())
    assert len(png) < len(whole.getvalue()) / 2


def test_no_eye_sees_that_it_has_fewer_colours():
    whole = BytesIO()
    chart().savefig(whole, dpi=DPI)
    with Image.open(BytesIO(encode_png(chart()))) as few, Image.open(whole) as all_of_them:
        assert few.size == all_of_them.size == (6 * DPI, 4 * DPI)
        assert len(few.getcolors()) <= COLOURS
        ours, drawn = (
            np.asarray(image.convert("RGB"), dtype=np.int16) for image in (few, all_of_them)
        )
    difference = np.abs(ours - drawn).max(axis=-1)
    assert difference.max() <= 12  # of 255
    assert (ours[drawn.min(axis=-1) == 255] == 255).all()  # paper stays white


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("dropout", ["dropout"]),
        ("best,seed=1,optimizer.ema=0.9", ["best,", " seed=1,", " optimizer.ema=0.9"]),
        ("colour_histogram (trivial classifier)", ["colour_histogram", " (trivial classifier)"]),
    ],
)
def test_long_names_of_arms_have_a_line_for_every_part(name, lines):
    assert break_arm_name(name).splitlines() == lines
