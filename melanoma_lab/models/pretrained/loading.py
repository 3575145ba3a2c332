"""Load pretrained weights from a file into a backbone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from melanoma_lab.config.schema.architecture import Architecture, EfficientNetLite
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.models.pretrained.weight_files import find_weights
from melanoma_lab.models.safe_loading import check_keras_file, check_weights_file, load_safely

#: Name of the nested model of a network that computes features from pixels.
BACKBONE = "backbone"


def load_weights(backbone: keras.Model, architecture: Architecture) -> None:
    """Load the configured weights into a backbone; do nothing if it starts from random weights.

    The file may be a ``.keras`` file of the backbone, or of a network of this package with the same
    backbone, which Keras loads in safe mode; ``.weights.h5``; or ``.h5`` as of Keras Applications.
    An architecture with PyTorch weights reads those itself.

    Args:
        backbone: model whose random weights are replaced.
        architecture: the chosen option with its parameters.

    Raises:
        UserError: the file is of another kind, or of another network.
    """
    found = find_weights(architecture)
    if found is None:
        return
    path = found.path
    if path.suffix not in {".keras", ".h5"}:
        torch = ", and PyTorch's .pth" if isinstance(architecture, EfficientNetLite) else ""
        raise UserError(
            f"{path}: architecture={architecture.name} takes weights from files of Keras, "
            f".keras and .h5{torch}."
        )
    try:
        if path.suffix == ".keras":
            _copy_weights(load_safely(check_keras_file(path)), backbone)
        else:
            check_weights_file(path, path.stat().st_size)
            backbone.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file makes Keras and HDF5 raise anything
        message = str(error).removeprefix(f"{path}: ").strip()
        reason = truncate(next(iter(message.splitlines()), "damaged"))
        raise UserError(
            f"{path}: no weights of architecture={architecture.name} can be read from it: {reason}"
        ) from error


def _find_backbone(model: keras.Model) -> keras.Model | None:
    """Return the backbone of a network, also inside test-time augmentation; None if none."""
    for layer in model.layers:
        if layer.name == BACKBONE:
            return layer
        if isinstance(layer, keras.Model) and (found := _find_backbone(layer)) is not None:
            return found
    return None


def _copy_weights(source: keras.Model, backbone: keras.Model) -> None:
    """Copy the weights of a backbone, or of the backbone inside a network."""
    values: list[Any] = (_find_backbone(source) or source).get_weights()
    shapes = [np.shape(value) for value in values]
    expected = [tuple(weight.shape) for weight in backbone.weights]
    if shapes != expected:
        raise ValueError(
            f"it has {len(shapes)} arrays, of other shapes or in another order than the "
            f"{len(expected)} expected."
        )
    backbone.set_weights(values)
