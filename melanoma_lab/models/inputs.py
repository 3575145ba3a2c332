"""Inputs of Keras networks: build new ones like them, and look up their names and shapes."""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.input_pipeline.model_inputs import METADATA, PIXELS, join_inputs


def build_inputs(network: keras.Model) -> Any:
    """Build float32 Keras inputs with the shapes of a network's inputs."""
    names = (PIXELS, METADATA)[: len(network.inputs)]
    pixels, *others = [
        keras.Input(tensor.shape[1:], dtype="float32", name=name)
        for tensor, name in zip(network.inputs, names, strict=True)
    ]
    return join_inputs(pixels, tuple(others))


def get_image_shape(network: keras.Model) -> tuple[int, ...]:
    """Return the height, width and channels of the images that a network takes."""
    return tuple(network.inputs[0].shape[1:])


def get_named_inputs(network: keras.Model) -> dict[str, Any] | None:
    """Return a network's inputs by name if it takes a dictionary; otherwise None."""
    inputs = getattr(network, "input", None)  # a Sequential that was never called has no input
    return inputs if isinstance(inputs, dict) else None
