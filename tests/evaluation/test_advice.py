"""How answers are to be read, kept as text and read again."""

import json

import numpy as np
import pytest

from melanoma_lab.evaluation.advice import Advice
from melanoma_lab.evaluation.temperature import Temperature


@pytest.mark.parametrize(
    "advice",
    [
        Advice(Temperature(1.5, 200), "melanoma", 0.25, 0.9),
        Advice(Temperature(1.0, 3, "there are too few"), "melanoma", float("nan"), 0.9),
        Advice(Temperature(0.5, 40)),
    ],
)
def test_it_is_read_as_it_was_kept(advice):
    again = Advice.read(advice.text())
    assert (again.temperature, again.slug) == (advice.temperature, advice.slug)
    np.testing.assert_equal((again.threshold, again.target), (advice.threshold, advice.target))
    json.loads(advice.text(), parse_constant=pytest.fail)  # no NaN, which JSON does not have


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"temperature": 2}', "[1, 2"])
def test_what_is_none_is_told(text):
    with pytest.raises(ValueError, match=r"Expect|Received"):
        Advice.read(text)


def test_a_temperature_is_above_zero():
    text = Advice(Temperature(1.5, 200)).text().replace("1.5", "-1.5")
    with pytest.raises(ValueError, match=r"above 0. Received -1.5"):
        Advice.read(text)
