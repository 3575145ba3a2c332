"""A network that returns the mean of the outputs of several runs' networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def build_mean_network(networks: Sequence[keras.Model]) -> keras.Model:
    """Build a network that returns the mean of the outputs of other networks.

    Args:
        networks: networks with the same inputs, such as pixels, shape (n, s, s, 3), whose outputs
            are probabilities, shape (n, n_classes).

    Returns:
        A network with the same inputs and outputs, which shares the weights of the others.
    """
    inputs = _copy_inputs(networks[0].input)
    outputs = [_rename(network, f"member_{i}")(inputs) for i, network in enumerate(networks)]
    mean = keras.layers.Average(name="ensemble", dtype="float32")(outputs)
    return keras.Model(inputs, mean, name="ensemble")


def _rename(network: keras.Model, name: str) -> keras.Model:
    """Wrap a network to rename it: members have equal names, but names of layers must differ."""
    inputs = _copy_inputs(network.input)
    return keras.Model(inputs, network(inputs), name=name)


def _copy_inputs(inputs: Any) -> Any:
    """Return new Keras inputs like those of a network: pixels, or a dictionary by name."""
    if isinstance(inputs, dict):
        return {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
            for name, tensor in inputs.items()
        }
    return keras.Input(inputs.shape[1:], name="pixels")
