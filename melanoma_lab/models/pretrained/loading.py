"""Weights from a file into a backbone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.config.schema.backbone import EfficientNetLite
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.models.pretrained.weight_files import find_weights
from melanoma_lab.models.safe_loading import check_keras_file, check_weights_file, load_safely

#: What a network's part that takes pixels to features is called in it.
BACKBONE = "backbone"


def load_weights(backbone: keras.Model, architecture: Architecture) -> None:
    """Give a backbone the weights that its configuration names.

    Files of Keras are read by Keras in safe mode: a ``.keras`` file of the backbone, or of a
    network of the lab that has one like it; ``.weights.h5``; and ``.h5`` as Keras's own networks
    have. An architecture whose ImageNet weights are PyTorch's reads those by a reader of its own.

    Args:
        backbone: with fresh weights, which are replaced.
        architecture: the option's configuration.

    Raises:
        UserError: the file is none of these, or of another network.
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
            _copy(load_safely(check_keras_file(path)), backbone)
        else:
            check_weights_file(path, path.stat().st_size)
            backbone.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file makes Keras and HDF5 raise anything
        said = str(error).removeprefix(f"{path}: ").strip()
        reason = truncate(next(iter(said.splitlines()), "damaged"))
        raise UserError(
            f"{path}: no weights of architecture={architecture.name} can be read from it: {reason}"
        ) from error


def _backbone_in(model: keras.Model) -> keras.Model | None:
    """The part of a network that is a backbone, also where views of the image surround it."""
    for layer in model.layers:
        if layer.name == BACKBONE:
            return layer
        if isinstance(layer, keras.Model) and (found := _backbone_in(layer)) is not None:
            return found
    return None


def _copy(source: keras.Model, backbone: keras.Model) -> None:
    """Copy the weights of a network, or of the part of it that is a backbone."""
    values: list[Any] = (_backbone_in(source) or source).get_weights()
    shapes = [np.shape(value) for value in values]
    expected = [tuple(weight.shape) for weight in backbone.weights]
    if shapes != expected:
        raise ValueError(
            f"it has {len(shapes)} arrays, of other shapes or in another order than the "
            f"{len(expected)} expected."
        )
    backbone.set_weights(values)
