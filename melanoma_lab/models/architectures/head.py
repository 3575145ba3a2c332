"""The last layers of networks: a softmax output, and a classification head on a backbone."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from melanoma_lab.models.regularisation import Regulariser


def add_softmax_output(features: Any, n_classes: int, regulariser: Regulariser) -> Any:
    """Add one dense layer with a softmax.

    Args:
        features: Keras tensor, shape (b, d).
        n_classes: number of outputs.
        regulariser: adds its weight penalty to the layer's kernel.

    Returns:
        Probabilities, a Keras tensor, float32, shape (b, n_classes).
    """
    return layers.Dense(
        n_classes,
        activation="softmax",
        # Float32 even under mixed precision: half precision would round the loss.
        dtype="float32",
        kernel_regularizer=regulariser.kernel_penalty(),
        name="probabilities",
    )(features)


def add_classification_head(
    backbone: keras.Model, n_classes: int, regulariser: Regulariser, *, name: str
) -> keras.Model:
    """Build a network from a backbone and one dense layer, with dropout between if configured.

    Args:
        backbone: model from float pixels, shape (n, H, W, 3), to features, shape (n, d). It must be
            named ``backbone``: fine-tuning finds it by this name.
        n_classes: number of outputs.
        regulariser: adds dropout, and its weight penalty to the dense layer's kernel.
        name: name of the network.
    """
    pixels = keras.Input(backbone.input_shape[1:], name="pixels")
    x = regulariser.after_block(backbone(pixels), 0, 1)
    return keras.Model(pixels, add_softmax_output(x, n_classes, regulariser), name=name)
