"""What a network takes of a batch: pixels, or pixels and what is known of the patient.

``(pixels, metadata)`` is a network's input and a batch's where metadata are joined to the image;
else pixels are, by themselves. In the place of pixels may be what a backbone makes of them.
"""

from __future__ import annotations

from typing import Any

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
