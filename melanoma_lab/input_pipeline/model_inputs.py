"""The inputs of a network: pixels alone, or pixels and patient metadata.

The inputs of a network, and of a batch, are ``(pixels, metadata)`` if the network uses metadata,
and pixels alone otherwise. Instead of pixels they may contain features of a backbone.
"""

from __future__ import annotations

from typing import Any

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
