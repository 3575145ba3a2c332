"""Network architectures. Each takes raw pixels, values 0 to 255, and scales them itself.

A builder takes (options, image_size, n_classes, regulariser) and returns a Keras model from float
pixels, shape (n, image_size, image_size, 3), to float32 probabilities, shape (n, n_classes).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from melanoma_lab.config.schema.architecture import Architecture, CompactCnn, Vgg5
from melanoma_lab.core.errors import UserError
from melanoma_lab.models import efficientnet_lite  # noqa: F401 (registers its builder)
from melanoma_lab.models.backbones import add_softmax_output
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.registry import builder, find_builder


def build_network(
    architecture: Architecture, *, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build a network with random weights from Keras's global seed or pretrained ones.

    Returns:
        Model from float pixels, values 0 to 255, shape (n, image_size, image_size, 3), to float32
        probabilities, shape (n, n_classes).

    Raises:
        UserError: the images are too small for the network, its weights cannot be loaded, or it
            does not support the configured regularisation.
    """
    build = find_builder("architecture", architecture.name)
    network: keras.Model = build(architecture, image_size, n_classes, regulariser)
    regulariser.require_taken(architecture.name)
    return network


@builder("architecture", "vgg5")
def vgg5(
    architecture: Vgg5, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build the course project's network, a VGG of 3x3 convolutions.

    It has 14,686,025 parameters at 180x180 and nine classes.
    """
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


@builder("architecture", "compact_cnn")
def compact_cnn(
    architecture: CompactCnn, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build a small residual network for processors without an accelerator.

    Full resolution and normalisation are slow on a processor. Therefore a strided convolution
    halves the image's side, each stage halves it again by max-pooling before its convolutions,
    residual branches are bottlenecks, and there is no normalisation. The last convolution of each
    branch starts at zero, so that every block starts as the identity (Zhang, Dauphin and Ma, "Fixup
    initialization", ICLR 2019; De and Smith, "Batch normalization biases residual blocks towards
    the identity function", NeurIPS 2020). Without normalisation the images of a batch do not
    influence each other, and the network computes the same in training and inference.

    With strided convolutions instead of max-pooling it was slower and, on ham10000 with three
    seeds, 10 points of balanced accuracy worse on validation lesions. Batch normalisation at the
    beginning of each stage, tried with those, was even slower and, on isic9_verified with two
    seeds, no better.
    """
    stages = len(architecture.filters)
    smallest = 2 ** (stages + 1)
    if image_size < smallest:
        raise UserError(
            f"dataset.image_size={image_size}: architecture=compact_cnn halves the image "
            f"{stages + 1} times; expected at least {smallest}."
        )
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="scale")(inputs)
    x = _convolve(x, architecture.stem, 3, regulariser, strides=2, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    n_blocks, first = sum(architecture.blocks), 0
    for stage, (filters, blocks) in enumerate(
        zip(architecture.filters, architecture.blocks, strict=True)
    ):
        name = f"stage{stage + 1}"
        x = layers.MaxPooling2D(name=f"{name}_pool")(x)
        x = _convolve(x, filters, 3, regulariser, name=f"{name}_widen")
        x = layers.ReLU(name=f"{name}_relu")(x)
        for block in range(blocks):
            branch = _bottleneck(x, filters, regulariser, name=f"{name}_block{block + 1}")
            branch = regulariser.residual(branch, first + block, n_blocks)
            x = layers.Add(name=f"{name}_block{block + 1}_add")([x, branch])
            x = layers.ReLU(name=f"{name}_block{block + 1}_relu3")(x)
        first += blocks
        x = regulariser.after_block(x, stage, stages)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = add_softmax_output(x, n_classes, regulariser)
    return keras.Model(inputs, outputs, name="compact_cnn")


def _bottleneck(x: Any, filters: int, regulariser: Regulariser, *, name: str) -> Any:
    """Add a residual branch: 1x1 to half the channels, 3x3, and 1x1 back, which starts at zero."""
    y = layers.ReLU(name=f"{name}_relu1")(
        _convolve(x, filters // 2, 1, regulariser, name=f"{name}_reduce")
    )
    y = layers.ReLU(name=f"{name}_relu2")(
        _convolve(y, filters // 2, 3, regulariser, name=f"{name}_conv")
    )
    return _convolve(y, filters, 1, regulariser, initializer="zeros", name=f"{name}_expand")


def _convolve(
    x: Any,
    filters: int,
    size: int,
    regulariser: Regulariser,
    *,
    name: str,
    strides: int = 1,
    initializer: str = "he_normal",
) -> Any:
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        kernel_initializer=initializer,
        kernel_regularizer=regulariser.kernel_penalty(),
        name=name,
    )(x)
