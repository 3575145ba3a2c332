"""A network from its file, and what it says of pixels. Everything here needs TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation.predictions import SUM_TOLERANCE
from melanoma_lab.models.inputs import get_named_inputs
from melanoma_lab.models.safe_loading import load_safely


def load_network(path: Path, beside: Collection[str] = ()) -> keras.Model:
    """Load a network that looks at images, and at nothing else that is not known.

    Args:
        path: a ``.keras`` file, as ``check_keras_file`` gives it.
        beside: names of the columns that are known beside pixels.

    Returns:
        From pixels, 0 to 255, shape (n, s, s, 3), to n answers for each of two or more classes.
        With columns, from a dictionary of ``pixels`` and of each of them, shape (n, 1).

    Raises:
        UserError: it cannot be loaded safely, or is of another kind.
    """
    network = load_classifier(path)
    _, others = _told_apart(network)
    if others and not beside:
        raise UserError(
            f"{path}: this model also needs {', '.join(others)}, which files of images do not say; "
            "expected one from pixels alone. evaluate takes them from a dataset that knows them."
        )
    if set(others) != set(beside) or (beside and get_named_inputs(network) is None):
        raise UserError(
            f"{path}: expected a network that takes {', '.join(beside)} beside pixels. Received "
            f"one that takes {', '.join(others) or 'nothing else'}."
        )
    return network


def load_classifier(path: Path) -> keras.Model:
    """Load a network from images, and perhaps from what is known of patients, to classes.

    Args:
        path: a ``.keras`` file, as ``check_keras_file`` gives it.

    Returns:
        From pixels, 0 to 255, shape (n, s, s, 3), or a dictionary of these and columns, shape
        (n, 1), to n answers for each of two or more classes.

    Raises:
        UserError: it cannot be loaded safely, or is of another kind.
    """
    network = load_safely(path)
    images, _ = _told_apart(network)
    expected = "(n, size, size, 3) to (n, classes)"
    shapes = [tuple(tensor.shape) for tensor in (*images, *network.outputs)]
    if len(shapes) != 2 or not _fit(*shapes):
        told = " to ".join(map(str, shapes))
        raise UserError(f"{path}: expected a network from {expected}. Received {told}.")
    return network


def find_pixel_input(network: keras.Model) -> Any:
    """The input of images, a Keras tensor, of a network that ``load_classifier`` gave."""
    return _told_apart(network)[0][0]


def image_size(network: keras.Model) -> int:
    """Side in pixels of the images that a network takes."""
    return int(find_pixel_input(network).shape[1])


def count_classes(network: keras.Model) -> int:
    """How many classes a network tells apart."""
    return int(network.outputs[0].shape[1])


def build_predict_function(network: keras.Model) -> Callable[[Any], NDArray[np.float32]]:
    """A function from what a network takes to probabilities, float32, (n, K), in inference mode.

    It raises UserError where a network's answers are no probabilities.
    """

    def answer(inputs: Any) -> NDArray[np.float32]:
        probabilities = np.asarray(network.predict_on_batch(inputs), dtype=np.float32)
        in_range = (probabilities >= 0) & (probabilities <= 1)  # False for NaN
        sums = probabilities.sum(axis=1, dtype=np.float64)
        if not in_range.all() or not np.allclose(sums, 1, rtol=0, atol=SUM_TOLERANCE):
            raise UserError(
                "model: its answers are no probabilities of classes (finite, from 0 to 1, with a "
                f"sum of 1). Received {probabilities[0].tolist()}."
            )
        return probabilities

    return answer


def _told_apart(network: keras.Model) -> tuple[list[Any], list[str]]:
    """The inputs that look like pictures, and the names of all others."""
    images = [tensor for tensor in network.inputs if len(tensor.shape) == 4]
    others = [tensor.name for tensor in network.inputs if len(tensor.shape) != 4]
    return images, others


def _fit(pixels: tuple[int | None, ...], classes: tuple[int | None, ...]) -> bool:
    _, height, width, channels = pixels
    return (
        height is not None
        and height == width
        and channels == 3
        and len(classes) == 2
        and (classes[1] or 0) >= 2
    )
