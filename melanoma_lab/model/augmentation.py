"""Augmentation: random changes to training batches, never to anything else.

The layers stand in front of the network while it trains and are left out of the network that is
evaluated and kept, so an augmented picture cannot reach validation, test or a user.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from melanoma_lab.config.schema import Augmentation, FlipRotateZoom


def augmentation_layers(augmentation: Augmentation, *, seed: int) -> list[keras.Layer]:
    """Layers that change a training batch, float pixels 0 to 255, and pass others through.

    Args:
        augmentation: the option's configuration.
        seed: of the layers' random numbers.
    """
    return BUILDERS[augmentation.name](augmentation, seed)


def none(_augmentation: Augmentation, _seed: int) -> list[keras.Layer]:
    """Training batches as they are."""
    return []


def flip_rotate_zoom(augmentation: Augmentation, seed: int) -> list[keras.Layer]:
    """The seed project's layers."""
    if not isinstance(augmentation, FlipRotateZoom):
        raise TypeError(f"Expected FlipRotateZoom. Received {type(augmentation).__name__}.")
    # In float32 under mixed precision too: half precision would round the pixels.
    exact = {"dtype": "float32"}
    return [
        layers.RandomFlip("horizontal_and_vertical", seed=seed, name="flip", **exact),
        layers.RandomRotation(augmentation.rotation, seed=seed + 1, name="rotate", **exact),
        layers.RandomZoom(augmentation.zoom, seed=seed + 2, name="zoom", **exact),
    ]


#: augmentation.name -> its builder.
BUILDERS: dict[str, Callable[[Augmentation, int], list[keras.Layer]]] = {
    "none": none,
    "flip_rotate_zoom": flip_rotate_zoom,
}
