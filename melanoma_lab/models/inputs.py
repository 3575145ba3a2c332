"""The inputs of Keras networks: their names, their shape, and new ones alike."""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.input_pipeline.model_inputs import METADATA, PIXELS, join_inputs


def build_inputs(network: keras.Model) -> Any:
    """Keras inputs as a network has, float32."""
    names = (PIXELS, METADATA)[: len(network.inputs)]
    pixels, *others = [
        keras.Input(tensor.shape[1:], dtype="float32", name=name)
        for tensor, name in zip(network.inputs, names, strict=True)
    ]
    return join_inputs(pixels, tuple(others))


def get_image_shape(network: keras.Model) -> tuple[int, ...]:
    """Height, width and channels of the images that a network takes."""
    return tuple(network.inputs[0].shape[1:])


def get_named_inputs(network: keras.Model) -> dict[str, Any] | None:
    """A network's inputs by name, where it takes a dictionary of them; else None."""
    taken = getattr(network, "input", None)  # a Sequential that was never called has none
    return taken if isinstance(taken, dict) else None
