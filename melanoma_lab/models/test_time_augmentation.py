"""Test-time augmentation: a network's mean over mirrored and turned views of an image.

A lesion has no upper side, so that its mirror images are as good photographs of it. The views are
part of the model, and so of the one that is tracked.
"""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.input_pipeline.model_inputs import join_inputs, split_inputs
from melanoma_lab.models.inputs import build_inputs

HEIGHT, WIDTH = 1, 2


def add_test_time_augmentation(network: keras.Model, tta: Tta) -> keras.Model:
    """A model that answers with the mean of what a network answers to views of an image.

    Args:
        network: from pixels, shape (n, s, s, 3), perhaps with metadata, which are the same in every
            view, to probabilities, shape (n, n_classes).
        tta: which views.

    Returns:
        The same inputs and outputs, sharing the network's weights; the network itself where the
        image as it is is the only view.
    """
    if tta is Tta.none:
        return network
    inputs = build_inputs(network)
    pixels, known = split_inputs(inputs)
    answers = [network(join_inputs(view, known)) for view in _views(pixels, tta)]
    # In float32 under mixed precision too: half precision would round the probabilities.
    mean = keras.layers.Average(dtype="float32", name="views")
    return keras.Model(inputs, mean(answers), name=network.name)


def _views(pixels: Any, tta: Tta) -> list[Any]:
    """The symmetries of a rectangle, or all those of a square, the image itself first."""
    turned = [pixels]
    if tta is Tta.dihedral:
        turned.append(keras.ops.transpose(pixels, (0, WIDTH, HEIGHT, 3)))
    axes = [(), (HEIGHT,), (WIDTH,), (HEIGHT, WIDTH)]
    return [keras.ops.flip(x, axis) if axis else x for x in turned for axis in axes]
