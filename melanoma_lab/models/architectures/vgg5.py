"""The course project's network."""

from __future__ import annotations

import keras
from keras import layers

from melanoma_lab.config.schema.architecture import Vgg5
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.architectures.head import add_softmax_output
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.registry import builder


@builder("architecture", "vgg5")
def vgg5(
    architecture: Vgg5, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build a VGG of 3x3 convolutions: 14,686,025 parameters at 180x180 and nine classes."""
    blocks = len(architecture.filters)
    smallest = 2**blocks
    if image_size < smallest:
        raise UserError(
            f"dataset.image_size={image_size}: architecture=vgg5 halves the image {blocks} times; "
            f"expected at least {smallest}."
        )
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 255, dtype="float32", name="scale")(inputs)
    for block, filters in enumerate(architecture.filters):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_regularizer=regulariser.kernel_penalty(),
            name=f"conv{block + 1}",
        )(x)
        x = layers.MaxPooling2D(name=f"pool{block + 1}")(x)
        x = regulariser.after_block(x, block, blocks)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(
        architecture.dense_units,
        activation="relu",
        kernel_regularizer=regulariser.kernel_penalty(),
        name="dense",
    )(x)
    outputs = add_softmax_output(x, n_classes, regulariser)
    return keras.Model(inputs, outputs, name="vgg5")
