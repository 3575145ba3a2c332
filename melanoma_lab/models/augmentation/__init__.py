"""Augmentation: random changes to training batches, never to anything else.

The layers act in the training step only (``melanoma_lab.training.augmented_network``) and are no
part of the network that is evaluated and kept, so an augmented picture cannot reach validation,
test or a user.

A builder takes (options, seed) and returns Keras layers in their order. A layer takes and returns
pixels; one that derives from ``MixingLayer`` takes and returns (pixels, labels, weights), and
metadata behind them where there are any. Their random numbers come from a
``keras.random.SeedGenerator`` each, so that a checkpoint can hold their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from melanoma_lab.config.schema import augmentation as schema
from melanoma_lab.input_pipeline.model_inputs import join_inputs, split_inputs
from melanoma_lab.models.augmentation.affine import RandomAffine
from melanoma_lab.models.augmentation.colour import RandomColour
from melanoma_lab.models.augmentation.erasing import RandomErasing
from melanoma_lab.models.augmentation.mixing import CutMixLayer, MixingLayer, MixUpLayer
from melanoma_lab.models.augmentation.rand_augment import RandAugmentLayer
from melanoma_lab.registry import builder, find_builder

#: Keeps augmentation's random numbers apart from others that are drawn from the same seed.
AUGMENTATION = 0xA6

#: Pixels (b, height, width, 3), 0 to 255, or (pixels, metadata (b, d)); labels (b, K), rows sum to
#: 1; weights (b,).
Batch = tuple[Any, Any, Any]


def build_augmentation_layers(augmentation: schema.Augmentation, *, seed: int) -> list[keras.Layer]:
    """Layers that change a training batch, float pixels 0 to 255, and pass others through.

    Args:
        augmentation: the option's configuration.
        seed: of the layers' random numbers.
    """
    return list(find_builder("augmentation", augmentation.name)(augmentation, seed))


def augment(augmentation: Sequence[keras.Layer], batch: Batch) -> Batch:
    """Change a training batch.

    Args:
        augmentation: what ``build_augmentation_layers`` returned.
        batch: pixels of any type, perhaps with metadata; labels and weights.

    Returns:
        The same shapes, float32. Of metadata only what mixes images changes anything.
    """
    inputs, *rest = batch
    pixels, metadata = split_inputs(inputs)
    pixels, labels, weights, *known = (
        keras.ops.cast(part, "float32") for part in (pixels, *rest, *metadata)
    )
    for layer in augmentation:
        if isinstance(layer, MixingLayer):
            pixels, labels, weights, *known = layer(
                (pixels, labels, weights, *known), training=True
            )
        else:
            pixels = layer(pixels, training=True)
    return join_inputs(pixels, tuple(known)), labels, weights


def _seeds(seed: int, n: int) -> list[int]:
    """Seeds for the layers of a run that have nothing in common with each other's."""
    state = np.random.SeedSequence([AUGMENTATION, seed]).generate_state(n)
    return [int(value) for value in state]


@builder("augmentation", "none")
def none(_augmentation: schema.NoAugmentation, _seed: int) -> list[keras.Layer]:
    """Training batches as they are."""
    return []


@builder("augmentation", "flip_rotate_zoom")
def flip_rotate_zoom(augmentation: schema.FlipRotateZoom, seed: int) -> list[keras.Layer]:
    """The course project's layers."""
    # In float32 under mixed precision too: half precision would round the pixels.
    exact = {"dtype": "float32"}
    return [
        layers.RandomFlip("horizontal_and_vertical", seed=seed, name="flip", **exact),
        layers.RandomRotation(augmentation.rotation, seed=seed + 1, name="rotate", **exact),
        layers.RandomZoom(augmentation.zoom, seed=seed + 2, name="zoom", **exact),
    ]


@builder("augmentation", "dermoscopy")
def dermoscopy(augmentation: schema.Dermoscopy, seed: int) -> list[keras.Layer]:
    """Geometry in one interpolation, colour in one matrix, then erasing."""
    affine, colour, erase = _seeds(seed, 3)
    low, high = augmentation.erase_area
    return [
        RandomAffine(
            flip=augmentation.flip,
            rotation=augmentation.rotation,
            crop=augmentation.crop,
            seed=affine,
        ),
        RandomColour(
            brightness=augmentation.brightness,
            contrast=augmentation.contrast,
            saturation=augmentation.saturation,
            hue=augmentation.hue,
            seed=colour,
        ),
        RandomErasing(share=augmentation.erase, area=(low, high), seed=erase),
    ]


@builder("augmentation", "randaugment")
def randaugment(augmentation: schema.RandAugment, seed: int) -> list[keras.Layer]:
    """Operations drawn for each image."""
    return [
        RandAugmentLayer(
            per_image=augmentation.per_image,
            magnitude=augmentation.magnitude,
            operations=augmentation.operations,
            seed=_seeds(seed, 1)[0],
        )
    ]


@builder("augmentation", "mixup")
def mixup(augmentation: schema.MixUp, seed: int) -> list[keras.Layer]:
    """What comes before it, then mixup."""
    before, mixing = _seeds(seed, 2)
    return [
        *build_augmentation_layers(augmentation.before, seed=before),
        MixUpLayer(alpha=augmentation.alpha, seed=mixing),
    ]


@builder("augmentation", "cutmix")
def cutmix(augmentation: schema.CutMix, seed: int) -> list[keras.Layer]:
    """What comes before it, then CutMix."""
    before, mixing = _seeds(seed, 2)
    return [
        *build_augmentation_layers(augmentation.before, seed=before),
        CutMixLayer(alpha=augmentation.alpha, seed=mixing),
    ]
