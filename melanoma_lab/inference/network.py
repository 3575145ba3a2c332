"""Load a network from its file, and predict with it. This module needs TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation.predictions import SUM_TOLERANCE
from melanoma_lab.input_pipeline.batches import get_named_inputs
from melanoma_lab.models.safe_loading import load_safely


def load_network(path: Path, columns: Collection[str] = ()) -> keras.Model:
    """Load a classifier from a ``.keras`` file that takes pixels and exactly the given columns.

    Returns:
        A network from pixels, 0 to 255, shape (n, s, s, 3), to outputs of shape (n, K) for K >= 2
        classes. With columns, its input is a dictionary of ``pixels`` and of each column, shape
        (n, 1).

    Raises:
        UserError: it cannot be loaded safely, is no such classifier, or has other inputs.
    """
    network = load_classifier(path)
    _, others = _split_inputs(network)
    if others and not columns:
        raise UserError(
            f"{path}: this model also needs {', '.join(others)}, which image files do not "
            "contain; expected a model that takes pixels alone. evaluate takes them from a "
            "dataset that has them."
        )
    if set(others) != set(columns) or (columns and get_named_inputs(network) is None):
        raise UserError(
            f"{path}: expected a network that takes {', '.join(columns)} beside pixels. Received "
            f"one that takes {', '.join(others) or 'nothing else'}."
        )
    return network


def load_classifier(path: Path) -> keras.Model:
    """Load a classifier of images from a ``.keras`` file; it may also use patient metadata.

    Returns:
        A network from pixels, 0 to 255, shape (n, s, s, 3), or a dictionary of pixels and columns,
        shape (n, 1), to outputs of shape (n, K) for K >= 2 classes.

    Raises:
        UserError: it cannot be loaded safely, or is no such classifier.
    """
    network = load_safely(path)
    images, _ = _split_inputs(network)
    expected = "(n, size, size, 3) to (n, classes)"
    shapes = [tuple(tensor.shape) for tensor in (*images, *network.outputs)]
    if len(shapes) != 2 or not _is_classifier_shape(*shapes):
        received = " to ".join(map(str, shapes))
        raise UserError(f"{path}: expected a network from {expected}. Received {received}.")
    return network


def find_pixel_input(network: keras.Model) -> Any:
    """Return the image input, a Keras tensor, of a network from ``load_classifier``."""
    return _split_inputs(network)[0][0]


def image_size(network: keras.Model) -> int:
    """Return the height and width of a network's input images, in pixels."""
    return int(find_pixel_input(network).shape[1])


def count_classes(network: keras.Model) -> int:
    """Return the number of a network's classes."""
    return int(network.outputs[0].shape[1])


def build_predict_function(network: keras.Model) -> Callable[[Any], NDArray[np.float32]]:
    """Build a function from a network's inputs to probabilities, in inference mode.

    The function returns float32, shape (n, K). It raises UserError if the outputs are not
    probabilities (0 to 1, with a sum of 1).
    """

    def predict(inputs: Any) -> NDArray[np.float32]:
        probabilities = np.asarray(network.predict_on_batch(inputs), dtype=np.float32)
        in_range = (probabilities >= 0) & (probabilities <= 1)  # False for NaN
        sums = probabilities.sum(axis=1, dtype=np.float64)
        if not in_range.all() or not np.allclose(sums, 1, rtol=0, atol=SUM_TOLERANCE):
            raise UserError(
                "model: the network's outputs are not class probabilities (finite, from 0 to 1, "
                f"with a sum of 1). Received {probabilities[0].tolist()}."
            )
        return probabilities

    return predict


def _split_inputs(network: keras.Model) -> tuple[list[Any], list[str]]:
    """Return the inputs that have the rank of images, and the names of all others."""
    images = [tensor for tensor in network.inputs if len(tensor.shape) == 4]
    others = [tensor.name for tensor in network.inputs if len(tensor.shape) != 4]
    return images, others


def _is_classifier_shape(pixels: tuple[int | None, ...], classes: tuple[int | None, ...]) -> bool:
    _, height, width, channels = pixels
    return (
        height is not None
        and height == width
        and channels == 3
        and len(classes) == 2
        and (classes[1] or 0) >= 2
    )
