"""Augmentation: random changes to training batches, never to anything else.

The layers stand in front of the network while it trains and are left out of the network that is
evaluated and kept, so an augmented picture cannot reach validation, test or a user.

A builder takes (options, seed) and returns the layers in their order.
"""

from __future__ import annotations

import keras
from keras import layers

from melanoma_lab.config.schema.augmentation import Augmentation, FlipRotateZoom, NoAugmentation
from melanoma_lab.registry import builder, find_builder


def augmentation_layers(augmentation: Augmentation, *, seed: int) -> list[keras.Layer]:
    """Layers that change a training batch, float pixels 0 to 255, and pass others through.

    Args:
        augmentation: the option's configuration.
        seed: of the layers' random numbers.
    """
    return list(find_builder("augmentation", augmentation.name)(augmentation, seed))


@builder("augmentation", "none")
def none(_augmentation: NoAugmentation, _seed: int) -> list[keras.Layer]:
    """Training batches as they are."""
    return []


@builder("augmentation", "flip_rotate_zoom")
def flip_rotate_zoom(augmentation: FlipRotateZoom, seed: int) -> list[keras.Layer]:
    """The seed project's layers."""
    # In float32 under mixed precision too: half precision would round the pixels.
    exact = {"dtype": "float32"}
    return [
        layers.RandomFlip("horizontal_and_vertical", seed=seed, name="flip", **exact),
        layers.RandomRotation(augmentation.rotation, seed=seed + 1, name="rotate", **exact),
        layers.RandomZoom(augmentation.zoom, seed=seed + 2, name="zoom", **exact),
    ]
