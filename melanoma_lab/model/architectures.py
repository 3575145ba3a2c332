"""Network architectures; each takes raw pixels, 0 to 255, and scales them itself.

A builder takes (options, image_size, n_classes, regulariser) and returns a Keras model from float
pixels, shape (n, image_size, image_size, 3), to float32 probabilities, shape (n, n_classes).
"""

from __future__ import annotations

import keras
from keras import layers

from melanoma_lab.config.schema.architecture import Architecture, Vgg5
from melanoma_lab.errors import UserError
from melanoma_lab.model.regularisation import Regulariser
from melanoma_lab.registry import builder, find_builder


def build_network(
    architecture: Architecture, *, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build a network with fresh weights from Keras's global seed.

    Args:
        architecture: the option's configuration.
        image_size: side of the square input in pixels.
        n_classes: number of outputs.
        regulariser: what adds dropout, weight penalties and stochastic depth.

    Returns:
        A model from float pixels 0 to 255, shape (n, image_size, image_size, 3), to float32
        probabilities, shape (n, n_classes).

    Raises:
        UserError: the images are too small for the network, or it has no place for the
            regularisation.
    """
    build = find_builder("architecture", architecture.name)
    network: keras.Model = build(architecture, image_size, n_classes, regulariser)
    regulariser.require_taken(architecture.name)
    return network


@builder("architecture", "vgg5")
def vgg5(
    architecture: Vgg5, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """The seed project's network: 14,686,025 parameters at 180x180 and nine classes."""
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
    outputs = layers.Dense(
        n_classes,
        activation="softmax",
        # Probabilities stay float32 under mixed precision: half precision would round the loss.
        dtype="float32",
        kernel_regularizer=regulariser.kernel_penalty(),
        name="probabilities",
    )(x)
    return keras.Model(inputs, outputs, name="vgg5")
