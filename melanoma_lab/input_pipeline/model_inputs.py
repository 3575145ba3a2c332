"""The inputs of a network: pixels alone, or pixels and patient metadata.

The inputs of a network, and of a batch, are ``(pixels, metadata)`` if the network uses metadata,
and pixels alone otherwise. Instead of pixels they may contain features of a backbone. A saved
network with metadata takes a dictionary of pixels and columns instead.

This module does not import Keras until it builds inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

PIXELS, METADATA = "pixels", "metadata"


def split_inputs(inputs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the pixels, and a tuple of the metadata, which is empty without metadata."""
    if isinstance(inputs, tuple | list):
        pixels, *others = inputs
        return pixels, tuple(others)
    return inputs, ()


def join_inputs(pixels: Any, others: tuple[Any, ...]) -> Any:
    """Join what ``split_inputs`` has returned."""
    return (pixels, *others) if others else pixels


def build_inputs(network: keras.Model) -> Any:
    """Build float32 Keras inputs with the shapes of a network's inputs."""
    import keras

    names = (PIXELS, METADATA)[: len(network.inputs)]
    pixels, *others = [
        keras.Input(tensor.shape[1:], dtype="float32", name=name)
        for tensor, name in zip(network.inputs, names, strict=True)
    ]
    return join_inputs(pixels, tuple(others))


def get_named_inputs(network: keras.Model) -> dict[str, Any] | None:
    """Return a network's inputs by name if it takes a dictionary; otherwise None."""
    inputs = getattr(network, "input", None)  # a Sequential that was never called has no input
    return inputs if isinstance(inputs, dict) else None
