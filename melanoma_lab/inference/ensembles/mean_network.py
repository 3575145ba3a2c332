"""The tracked networks of several runs as one network that answers with their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def build_mean_network(networks: Sequence[keras.Model]) -> keras.Model:
    """A network that answers with the mean of what others answer to the same inputs.

    Args:
        networks: of the same inputs, such as pixels, shape (n, s, s, 3), to probabilities, shape
            (n, n_classes).

    Returns:
        The same inputs and outputs, sharing their weights.
    """
    inputs = _fresh(networks[0].input)
    answers = [_named(network, f"member_{i}")(inputs) for i, network in enumerate(networks)]
    mean = keras.layers.Average(name="ensemble", dtype="float32")(answers)
    return keras.Model(inputs, mean, name="ensemble")


def _named(network: keras.Model, name: str) -> keras.Model:
    """A network under a name of its own; members are called alike, and layers may not be."""
    inputs = _fresh(network.input)
    return keras.Model(inputs, network(inputs), name=name)


def _fresh(taken: Any) -> Any:
    """Inputs of their own, as a network has them: pixels, or a dictionary by name."""
    if isinstance(taken, dict):
        return {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
            for name, tensor in taken.items()
        }
    return keras.Input(taken.shape[1:], name="pixels")
