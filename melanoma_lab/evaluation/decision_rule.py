"""The rule, chosen on val, by which a network's probabilities become decisions on new images."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from melanoma_lab.core.untrusted_files import parse_json
from melanoma_lab.evaluation.calibration import Temperature
from melanoma_lab.evaluation.confidence_intervals import UNDEFINED, IntervalEstimate

FILE: Final = "advice.json"
"""File name of the rule in the folder of a model."""


@dataclass(frozen=True)
class DecisionRule:
    """Temperature and threshold, chosen on val, that are applied to predictions of new images.

    Attributes:
        temperature: temperature that calibrates the network's probabilities.
        slug: slug of the class that has a threshold; empty without a threshold.
        threshold: threshold of the class's calibrated probability; NaN if there is none.
        target: the sensitivity for which the threshold was chosen; NaN if there is none.
        measured_on: the split on which the rates below were measured: test, or val, on which the
            threshold was chosen, if test was not predicted; empty if unknown.
        sensitivity: sensitivity on that split, with its interval clustered by lesion.
        specificity: specificity on that split, likewise.
    """

    temperature: Temperature
    slug: str = ""
    threshold: float = math.nan
    target: float = math.nan
    measured_on: str = ""
    sensitivity: IntervalEstimate = UNDEFINED
    specificity: IntervalEstimate = UNDEFINED

    def plain(self) -> Any:
        """Return the rule as plain containers; undefined values are None."""
        return _replace_nan(asdict(self))

    def text(self) -> str:
        """Return the rule as JSON, the content of ``FILE``."""
        return dump_strict_json(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a rule from JSON that ``DecisionRule.text`` wrote.

        Raises:
            ValueError: the text is not a rule.
        """
        try:
            content = parse_json(text)
            numbers = {
                name: math.nan if content[name] is None else float(content[name])
                for name in ("threshold", "target")
            }
            values = content["temperature"]
            temperature = Temperature(
                float(values["value"]), int(values["n"]), str(values["why_not"])
            )
            rule = cls(
                temperature,
                str(content["slug"]),
                **numbers,
                measured_on=str(content["measured_on"]),
                sensitivity=_read_estimate(content["sensitivity"]),
                specificity=_read_estimate(content["specificity"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected what is said beside a model. Received {error!r}."
            ) from error
        if not 0 < temperature.value < math.inf:
            raise ValueError(f"Expected a temperature above 0. Received {temperature.value}.")
        return rule


def _read_estimate(content: Any) -> IntervalEstimate:
    """Read an estimate; undefined if a value is null."""
    numbers = {k: content[k] for k in asdict(UNDEFINED)}
    if None in numbers.values():
        return UNDEFINED
    return IntervalEstimate(**{k: float(v) for k, v in numbers.items()})


def dump_strict_json(content: Any) -> str:
    """Return plain containers as JSON, with null for NaN."""
    return json.dumps(_replace_nan(content), indent=2, allow_nan=False) + "\n"


def _replace_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _replace_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace_nan(value) for value in node]
    return None if isinstance(node, float) and math.isnan(node) else node
