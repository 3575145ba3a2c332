"""How answers are to be read, kept as text and read again."""

import json

import numpy as np
import pytest

from melanoma_lab.evaluation.confidence_intervals import UNDEFINED, IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule, Temperature

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "advice",
    [
        DecisionRule(Temperature(1.5, 200), "melanoma", 0.25, 0.9),
        DecisionRule(Temperature(1.0, 3, "there are too few"), "melanoma", float("nan"), 0.9),
        DecisionRule(Temperature(0.5, 40)),
        DecisionRule(
            Temperature(1.5, 200),
            "melanoma",
            0.25,
            0.9,
            measured_on="test",
            sensitivity=IntervalEstimate(0.8, 0.7, 0.9),
            specificity=UNDEFINED,
        ),
    ],
)
def test_it_is_read_as_it_was_kept(advice):
    again = DecisionRule.read(advice.text())
    assert (again.temperature, again.slug) == (advice.temperature, advice.slug)
    np.testing.assert_equal((again.threshold, again.target), (advice.threshold, advice.target))
    measured = (again.measured_on, again.sensitivity, again.specificity)
    assert measured == (advice.measured_on, advice.sensitivity, advice.specificity)
    json.loads(advice.text(), parse_constant=pytest.fail)  # no NaN, which JSON does not have


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"temperature": 2}', "[1, 2"])
def test_what_is_none_is_told(text):
    with pytest.raises(ValueError, match=r"Expect|Received"):
        DecisionRule.read(text)


@pytest.mark.parametrize("value", ["-1.5", "0.0"])
def test_a_temperature_is_above_zero(value):
    text = DecisionRule(Temperature(1.5, 200)).text().replace("1.5", value)
    with pytest.raises(ValueError, match=f"above 0. Received {value}"):
        DecisionRule.read(text)
