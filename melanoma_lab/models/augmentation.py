"""Augmentation: random changes to training batches only.

The layers act in the training step only (``melanoma_lab.training.train_steps``). They are not part
of the network that is evaluated and saved, so that validation, test and predictions never use
augmented images.

A builder takes (options, seed) and returns Keras layers in order. A layer takes and returns pixels.
A subclass of ``MixingLayer`` takes and returns (pixels, labels, weights), followed by metadata if
there are any. Each layer has its own ``keras.random.SeedGenerator``, so that a checkpoint can hold
the state of its random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from melanoma_lab.config.schema import training_images as schema
from melanoma_lab.input_pipeline.batches import join_inputs, split_inputs
from melanoma_lab.models.augmentation_layers import (
    CutMixLayer,
    MixingLayer,
    MixUpLayer,
    RandomAffine,
    RandomColour,
    RandomErasing,
)
from melanoma_lab.models.rand_augment import RandAugmentLayer
from melanoma_lab.registry import builder, find_builder

#: Part of the seeds of augmentation, so that they differ from other seeds of a run.
AUGMENTATION = 0xA6

#: (inputs, labels, weights). Inputs are pixels, shape (b, height, width, 3), values 0 to 255, or
#: (pixels, metadata), with metadata of shape (b, d). Labels have shape (b, K), and a row sums to 1;
#: weights have shape (b,).
Batch = tuple[Any, Any, Any]


def build_augmentation_layers(augmentation: schema.Augmentation, *, seed: int) -> list[keras.Layer]:
    """Build the layers that augment a training batch of float pixels, values 0 to 255."""
    return list(find_builder("augmentation", augmentation.name)(augmentation, seed))


def augment(augmentation: Sequence[keras.Layer], batch: Batch) -> Batch:
    """Augment a training batch.

    Args:
        batch: pixels of any dtype, perhaps with metadata; labels and weights.

    Returns:
        The augmented batch with the same shapes, float32. Metadata change only if images are mixed.
    """
    inputs, *rest = batch
    pixels, others = split_inputs(inputs)
    pixels, labels, weights, *metadata = (
        keras.ops.cast(part, "float32") for part in (pixels, *rest, *others)
    )
    for layer in augmentation:
        if isinstance(layer, MixingLayer):
            pixels, labels, weights, *metadata = layer(
                (pixels, labels, weights, *metadata), training=True
            )
        else:
            pixels = layer(pixels, training=True)
    return join_inputs(pixels, tuple(metadata)), labels, weights


def _seeds(seed: int, n: int) -> list[int]:
    """Make independent seeds for n layers from one seed."""
    state = np.random.SeedSequence([AUGMENTATION, seed]).generate_state(n)
    return [int(value) for value in state]


@builder("augmentation", "none")
def none(_augmentation: schema.NoAugmentation, _seed: int) -> list[keras.Layer]:
    """Build no layers: training batches do not change."""
    return []


@builder("augmentation", "flip_rotate_zoom")
def flip_rotate_zoom(augmentation: schema.FlipRotateZoom, seed: int) -> list[keras.Layer]:
    """Build the course project's layers: Keras's random flip, rotation and zoom."""
    # Float32 even under mixed precision: half precision would round the pixels.
    exact = {"dtype": "float32"}
    return [
        layers.RandomFlip("horizontal_and_vertical", seed=seed, name="flip", **exact),
        layers.RandomRotation(augmentation.rotation, seed=seed + 1, name="rotate", **exact),
        layers.RandomZoom(augmentation.zoom, seed=seed + 2, name="zoom", **exact),
    ]


@builder("augmentation", "dermoscopy")
def dermoscopy(augmentation: schema.Dermoscopy, seed: int) -> list[keras.Layer]:
    """Build an affine change, a change of colours, and random erasing."""
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
    """Build RandAugment, which draws operations for each image."""
    return [
        RandAugmentLayer(
            per_image=augmentation.per_image,
            magnitude=augmentation.magnitude,
            operations=augmentation.operations,
            seed=_seeds(seed, 1)[0],
        )
    ]


@builder("augmentation", "mixup")
@builder("augmentation", "cutmix")
def mixing(augmentation: schema.Mixing, seed: int) -> list[keras.Layer]:
    """Build the configured layers before mixing, and mixup or CutMix."""
    before, mixing = _seeds(seed, 2)
    layer = MixUpLayer if isinstance(augmentation, schema.MixUp) else CutMixLayer
    return [
        *build_augmentation_layers(augmentation.before, seed=before),
        layer(alpha=augmentation.alpha, seed=mixing),
    ]
