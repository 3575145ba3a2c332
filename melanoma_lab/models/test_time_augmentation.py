"""Test-time augmentation: average a network's output over mirrored and rotated views of an image.

A photograph of a lesion has no natural orientation, so that every view is equally valid. The views
are part of the model, and therefore of the saved model.
"""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.input_pipeline.batches import build_inputs, join_inputs, split_inputs

HEIGHT, WIDTH = 1, 2


def add_test_time_augmentation(network: keras.Model, tta: Tta) -> keras.Model:
    """Return a model that averages a network's probabilities over views of an image.

    Args:
        network: model from pixels, shape (n, s, s, 3), perhaps with metadata, to probabilities,
            shape (n, n_classes). Metadata are the same for all views.
        tta: the views to average over.

    Returns:
        Model with the same inputs and outputs, which shares the network's weights; for
        ``Tta.none`` the network itself.
    """
    if tta is Tta.none:
        return network
    inputs = build_inputs(network)
    pixels, metadata = split_inputs(inputs)
    outputs = [network(join_inputs(view, metadata)) for view in _make_views(pixels, tta)]
    # Float32 even under mixed precision: half precision would round the probabilities.
    mean = keras.layers.Average(dtype="float32", name="views")
    return keras.Model(inputs, mean(outputs), name=network.name)


def _make_views(pixels: Any, tta: Tta) -> list[Any]:
    """Return the image itself, then its other symmetries: of a rectangle, or of a square."""
    orientations = [pixels]
    if tta is Tta.dihedral:
        orientations.append(keras.ops.transpose(pixels, (0, WIDTH, HEIGHT, 3)))
    axes = [(), (HEIGHT,), (WIDTH,), (HEIGHT, WIDTH)]
    return [keras.ops.flip(x, axis) if axis else x for x in orientations for axis in axes]
