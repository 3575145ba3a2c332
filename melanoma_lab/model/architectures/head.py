"""What every network ends with."""

from __future__ import annotations

from typing import Any

from keras import layers

from melanoma_lab.model.regularisation import Regulariser


def probabilities(features: Any, n_classes: int, regulariser: Regulariser) -> Any:
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
