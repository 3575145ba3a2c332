"""Backbones: their weights, the head on their features, and Keras Applications as backbones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from melanoma_lab.config.schema.architecture import Architecture, EfficientNetLite, KerasApplication
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.models.safe_loading import check_keras_file, check_weights_file, load_safely
from melanoma_lab.models.weight_files import find_weights
from melanoma_lab.registry import builder

#: Name of the nested model of a network that computes features from pixels.
BACKBONE = "backbone"
#: Functions of Keras Applications that build a network, by the name of the architecture.
APPLICATIONS = {
    "efficientnetv2_b0": keras.applications.EfficientNetV2B0,
    "mobilenetv3_small": keras.applications.MobileNetV3Small,
    "mobilenetv3_large": keras.applications.MobileNetV3Large,
    "convnext_tiny": keras.applications.ConvNeXtTiny,
}
#: Smallest side of the image in pixels that Keras Applications accept.
SMALLEST = 32


def add_softmax_output(features: Any, n_classes: int, regulariser: Regulariser) -> Any:
    """Add one dense layer with a softmax.

    Args:
        features: Keras tensor, shape (b, d).

    Returns:
        Probabilities, a Keras tensor, float32, shape (b, n_classes).
    """
    return layers.Dense(
        n_classes,
        activation="softmax",
        # Float32 even under mixed precision: half precision would round the loss.
        dtype="float32",
        kernel_regularizer=regulariser.kernel_penalty(),
        name="probabilities",
    )(features)


def add_classification_head(
    backbone: keras.Model, n_classes: int, regulariser: Regulariser, *, name: str
) -> keras.Model:
    """Build a network from a backbone and one dense layer, with dropout between if configured.

    Args:
        backbone: model from float pixels, shape (n, H, W, 3), to features, shape (n, d). It must be
            named ``backbone``: fine-tuning finds it by this name.
    """
    pixels = keras.Input(backbone.input_shape[1:], name="pixels")
    x = regulariser.after_block(backbone(pixels), 0, 1)
    return keras.Model(pixels, add_softmax_output(x, n_classes, regulariser), name=name)


def load_weights(backbone: keras.Model, architecture: Architecture) -> None:
    """Load the configured weights into a backbone; do nothing if it starts from random weights.

    The file may be a ``.keras`` file of the backbone, or of a network of this package with the same
    backbone, which Keras loads in safe mode; ``.weights.h5``; or ``.h5`` as of Keras Applications.
    An architecture with PyTorch weights reads those itself.

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


@builder("architecture", "efficientnetv2_b0")
@builder("architecture", "mobilenetv3_small")
@builder("architecture", "mobilenetv3_large")
@builder("architecture", "convnext_tiny")
def keras_application(
    architecture: KerasApplication, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build the backbone, which scales pixels itself, and a new classification head.

    Dropout layers inside the backbone are disabled, so that an arm has only the configured
    regularisation.
    """
    if image_size < SMALLEST:
        raise UserError(
            f"dataset.image_size={image_size}: architecture={architecture.name} expects at least "
            f"{SMALLEST}."
        )
    built = APPLICATIONS[architecture.name](
        include_top=False,
        weights=None,
        input_shape=(image_size, image_size, 3),
        pooling="avg",
        include_preprocessing=True,
    )
    backbone = keras.Model(built.input, built.output, name=BACKBONE)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    load_weights(backbone, architecture)
    return add_classification_head(backbone, n_classes, regulariser, name=architecture.name)
