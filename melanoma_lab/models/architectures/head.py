"""What every network ends with."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from melanoma_lab.models.regularisation import Regulariser


def add_softmax_output(features: Any, n_classes: int, regulariser: Regulariser) -> Any:
    """One dense layer and a softmax.

    Args:
        features: a Keras tensor, shape (b, d).
        n_classes: number of outputs.
        regulariser: puts its penalty on the layer's kernel.

    Returns:
        float32, shape (b, n_classes).
    """
    return layers.Dense(
        n_classes,
        activation="softmax",
        # Probabilities stay float32 under mixed precision: half precision would round the loss.
        dtype="float32",
        kernel_regularizer=regulariser.kernel_penalty(),
        name="probabilities",
    )(features)


def add_classification_head(
    backbone: keras.Model, n_classes: int, regulariser: Regulariser, *, name: str
) -> keras.Model:
    """A network of a backbone and one dense layer, with dropout between where it is asked for.

    Args:
        backbone: from float pixels, shape (n, H, W, 3), to features, shape (n, d). Its name,
            ``backbone``, is by what the part of a network that may be frozen is found.
        n_classes: number of outputs.
        regulariser: adds dropout and puts its penalty on the dense layer's kernel.
        name: the network's.
    """
    pixels = keras.Input(backbone.input_shape[1:], name="pixels")
    x = regulariser.after_block(backbone(pixels), 0, 1)
    return keras.Model(pixels, add_softmax_output(x, n_classes, regulariser), name=name)
