"""Network architectures. Each takes raw pixels, values 0 to 255, and scales them itself.

A builder takes (options, image_size, n_classes, regulariser) and returns a Keras model from float
pixels, shape (n, image_size, image_size, 3), to float32 probabilities, shape (n, n_classes).
"""

from __future__ import annotations

import keras

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.models.architectures import (
    compact_cnn,
    efficientnet_lite,
    keras_applications,
    vgg5,
)
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.registry import find_builder

__all__ = ["build_network", "compact_cnn", "efficientnet_lite", "keras_applications", "vgg5"]


def build_network(
    architecture: Architecture, *, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build a network with random weights from Keras's global seed or pretrained ones.

    Args:
        architecture: the chosen option with its parameters.
        image_size: side of the square input in pixels.
        n_classes: number of outputs.
        regulariser: adds dropout, weight penalties and stochastic depth.

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
