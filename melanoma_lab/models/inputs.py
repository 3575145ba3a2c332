"""What a network takes: pixels, or pixels and what is known of the patient.

``(pixels, metadata)`` is a network's input and a batch's where metadata are joined to the image;
else pixels are, by themselves. In the place of pixels may be what a backbone makes of them.
"""

from __future__ import annotations

from typing import Any

import keras

PIXELS, METADATA = "pixels", "metadata"


def split_inputs(inputs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Pixels, and a tuple of the metadata or of nothing."""
    if isinstance(inputs, tuple | list):
        pixels, *others = inputs
        return pixels, tuple(others)
    return inputs, ()


def join_inputs(pixels: Any, others: tuple[Any, ...]) -> Any:
    """What ``split_inputs`` took apart."""
    return (pixels, *others) if others else pixels


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
