"""Test-time augmentation: a network's mean over mirrored and turned views of an image.

A lesion has no upper side, so that its mirror images are as good photographs of it. The views are
part of the model, and so of the one that is tracked.
"""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.config.schema.evaluation import Tta

HEIGHT, WIDTH = 1, 2


def with_views(network: keras.Model, tta: Tta) -> keras.Model:
    """A model that answers with the mean of what a network answers to views of an image.

    Args:
        network: from pixels, shape (n, s, s, 3), to probabilities, shape (n, n_classes).
        tta: which views.

    Returns:
        The same inputs and outputs, sharing the network's weights; the network itself where the
        image as it is is the only view.
    """
    if tta is Tta.none:
        return network
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    answers = [network(view) for view in _views(pixels, tta)]
    # As the answers are: a mean in bfloat16 no longer sums to one.
    mean = keras.layers.Average(name="views", dtype="float32")(answers)
    return keras.Model(pixels, mean, name=network.name)


def _views(pixels: Any, tta: Tta) -> list[Any]:
    """The symmetries of a rectangle, or all those of a square, the image itself first."""
    turned = [pixels]
    if tta is Tta.dihedral:
        turned.append(keras.ops.transpose(pixels, (0, WIDTH, HEIGHT, 3)))
    axes = [(), (HEIGHT,), (WIDTH,), (HEIGHT, WIDTH)]
    return [keras.ops.flip(x, axis) if axis else x for x in turned for axis in axes]
