"""How a network's answers to other images are to be read, as it was chosen on val."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from melanoma_lab.core.untrusted_files import parse_json
from melanoma_lab.evaluation.confidence_intervals import UNDEFINED, IntervalEstimate
from melanoma_lab.evaluation.temperature import Temperature

FILE: Final = "advice.json"
"""What it is called beside a model."""


@dataclass(frozen=True)
class DecisionRule:
    """How to read what a network says of another image, as it was chosen on val.

    Attributes:
        temperature: of its probabilities.
        slug: the class that the threshold is of; empty where there is none.
        threshold: on the calibrated probability; NaN where there is none.
        target: the sensitivity that it was chosen for; NaN where there is none.
        measured_on: the split that the threshold's rates were measured on: test, or val, by which
            it was chosen, where test was left alone; empty where nothing says it.
        sensitivity: there, with its interval over draws of lesions.
        specificity: likewise.
    """

    temperature: Temperature
    slug: str = ""
    threshold: float = math.nan
    target: float = math.nan
    measured_on: str = ""
    sensitivity: IntervalEstimate = UNDEFINED
    specificity: IntervalEstimate = UNDEFINED

    def plain(self) -> Any:
        """As plain containers, None for what is undefined."""
        return _without_nan(asdict(self))

    def text(self) -> str:
        """As it is kept beside a model."""
        return dump_strict_json(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``text`` gave.

        Raises:
            ValueError: it gave something else.
        """
        try:
            said = parse_json(text)
            numbers = {
                name: math.nan if said[name] is None else float(said[name])
                for name in ("threshold", "target")
            }
            kept = said["temperature"]
            fitted = Temperature(float(kept["value"]), int(kept["n"]), str(kept["why_not"]))
            advice = cls(
                fitted,
                str(said["slug"]),
                **numbers,
                measured_on=str(said.get("measured_on", "")),
                sensitivity=_proportion(said.get("sensitivity")),
                specificity=_proportion(said.get("specificity")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected what is said beside a model. Received {error!r}."
            ) from error
        if not 0 < fitted.value < math.inf:
            raise ValueError(f"Expected a temperature above 0. Received {fitted.value}.")
        return advice


def _proportion(said: Any) -> IntervalEstimate:
    """What ``text`` gave; undefined where it gave none, as before it told them."""
    found = {} if said is None else {k: said[k] for k in asdict(UNDEFINED)}
    if None in found.values() or not found:
        return UNDEFINED
    return IntervalEstimate(**{k: float(v) for k, v in found.items()})


def dump_strict_json(content: Any) -> str:
    """JSON of plain containers, with null for what is undefined."""
    return json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"


def _without_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and math.isnan(node) else node
