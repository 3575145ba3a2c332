"""The default search space: the learning rate, and the strength of the regularisation."""

from __future__ import annotations

from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.regularisation import CombinedRegularisation, Dropout

#: The learning rate is searched from the configured one divided by this factor to that times it.
LEARNING_RATES = 10.0
#: The range of a dropout rate. A higher rate would drop nearly all of a layer.
DROPOUT = {"min": 0.0, "max": 0.6}
#: Option of the group ``regularisation`` -> its key -> the range that is searched.
REGULARISATION: dict[str, dict[str, dict[str, Any]]] = {
    "l2": {"factor": {"min": 1e-6, "max": 1e-2, "log": True}},
    "label_smoothing": {"factor": {"min": 0.0, "max": 0.3}},
    "weight_decay": {"factor": {"min": 1e-3, "max": 0.5, "log": True}},
    "stochastic_depth": {"rate": {"min": 0.0, "max": 0.5}},
}


def default_space(config: Config) -> dict[str, Any]:
    """Return the space to search around a configuration, in the form of ``tuner.space``.

    Args:
        config: the validated configuration, which declares no space itself.
    """
    rate = config.optimizer.learning_rate
    space: dict[str, Any] = {
        "optimizer.learning_rate": {
            "min": rate / LEARNING_RATES,
            "max": rate * LEARNING_RATES,
            "log": True,
        }
    }
    regularisation = config.regularisation
    found = dict(REGULARISATION.get(regularisation.name, {}))
    if isinstance(regularisation, Dropout | CombinedRegularisation):
        found |= {f"rates.{i}": dict(DROPOUT) for i in range(len(regularisation.rates))}
    if isinstance(regularisation, CombinedRegularisation):
        keys = {"l2": "factor", "label_smoothing": "factor", "weight_decay": "factor"}
        keys["stochastic_depth"] = "rate"
        for name, key in keys.items():
            if getattr(regularisation, name):  # a strength of 0 is off and stays off
                found[name] = REGULARISATION[name][key]
    return space | {f"regularisation.{key}": bounds for key, bounds in found.items()}
