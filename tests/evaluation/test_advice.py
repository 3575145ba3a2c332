"""How answers are to be read, kept as text and read again."""

import json

import numpy as np
import pytest

from melanoma_lab.evaluation.advice import Advice
from melanoma_lab.evaluation.proportions import UNDEFINED, Proportion
from melanoma_lab.evaluation.temperature import Temperature


@pytest.mark.parametrize(
    "advice",
    [
        Advice(Temperature(1.5, 200), "melanoma", 0.25, 0.9),
        Advice(Temperature(1.0, 3, "there are too few"), "melanoma", float("nan"), 0.9),
        Advice(Temperature(0.5, 40)),
        Advice(
            Temperature(1.5, 200),
            "melanoma",
            0.25,
            0.9,
            measured_on="test",
            sensitivity=Proportion(0.8, 0.7, 0.9),
            specificity=UNDEFINED,
        ),
    ],
)
def test_it_is_read_as_it_was_kept(advice):
    again = Advice.read(advice.text())
    assert (again.temperature, again.slug) == (advice.temperature, advice.slug)
    np.testing.assert_equal((again.threshold, again.target), (advice.threshold, advice.target))
    measured = (again.measured_on, again.sensitivity, again.specificity)
    assert measured == (advice.measured_on, advice.sensitivity, advice.specificity)
    json.loads(advice.text(), parse_constant=pytest.fail)  # no NaN, which JSON does not have


def test_one_that_was_kept_before_rates_were_is_read():
    kept = json.loads(Advice(Temperature(1.5, 200), "melanoma", 0.25, 0.9).text())
    for name in ("measured_on", "sensitivity", "specificity"):
        del kept[name]
    again = Advice.read(json.dumps(kept))
    assert (again.measured_on, again.sensitivity, again.threshold) == ("", UNDEFINED, 0.25)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"temperature": 2}', "[1, 2"])
def test_what_is_none_is_told(text):
    with pytest.raises(ValueError, match=r"Expect|Received"):
        Advice.read(text)


@pytest.mark.parametrize("value", ["-1.5", "0.0"])
def test_a_temperature_is_above_zero(value):
    text = Advice(Temperature(1.5, 200)).text().replace("1.5", value)
    with pytest.raises(ValueError, match=f"above 0. Received {value}"):
        Advice.read(text)
