"""What is searched where nothing is declared: the learning rate, and what regularises."""

from __future__ import annotations

from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.regularisation import CombinedRegularisation, Dropout

#: The learning rate is searched between so many times less and more than the option's own.
LEARNING_RATES = 10.0
#: Highest rate of dropout: beyond, little of a layer is left.
DROPOUT = {"min": 0.0, "max": 0.6}
#: Option of the group ``regularisation`` -> its key -> where it is searched.
REGULARISATION: dict[str, dict[str, dict[str, Any]]] = {
    "l2": {"factor": {"min": 1e-6, "max": 1e-2, "log": True}},
    "label_smoothing": {"factor": {"min": 0.0, "max": 0.3}},
    "weight_decay": {"factor": {"min": 1e-3, "max": 0.5, "log": True}},
    "stochastic_depth": {"rate": {"min": 0.0, "max": 0.5}},
}


def default_space(config: Config) -> dict[str, Any]:
    """A space to search around a configuration, in the form of ``tuner.space``.

    Args:
        config: the checked configuration, without a space of its own.
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
        of = {"l2": "factor", "label_smoothing": "factor", "weight_decay": "factor"}
        of["stochastic_depth"] = "rate"
        for name, key in of.items():
            if getattr(regularisation, name):  # what is off stays off
                found[name] = REGULARISATION[name][key]
    return space | {f"regularisation.{key}": where for key, where in found.items()}
