"""Networks extended by patient metadata or by test-time augmentation.

During training a network takes metadata that ``melanoma_lab.data.patient_metadata`` has encoded.
The saved model takes an age in years and integer codes. Its encoding consists of Keras's own
operations, so that Keras's safe mode can load it. It takes codes instead of words, because Keras
3.15 refuses NumPy arrays of strings in ``predict``, and so behind ``mlflow models serve``.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.patient_metadata import AgeScaler, PatientEncoder
from melanoma_lab.input_pipeline.batches import (
    METADATA,
    PIXELS,
    build_inputs,
    join_inputs,
    split_inputs,
)
from melanoma_lab.models.regularisation import Regulariser

#: Names of the metadata's dense layer and of the layer that joins its output to the features.
BRANCH, JOINED = "metadata_dense", "metadata_joined"


def add_metadata_branch(
    network: keras.Model, n_numbers: int, *, width: int, regulariser: Regulariser
) -> keras.Model:
    """Add a branch for encoded patient metadata before a network's last layer.

    Metadata pass through a new dense layer, and its output is joined to the input of the network's
    last layer. That must be a dense layer, as in all architectures of this package; a new one with
    the wider input replaces it.

    Args:
        network: model from pixels to probabilities, with its initial weights.
        n_numbers: number of values that encode the metadata of an image.

    Returns:
        Model from (pixels, metadata), float32, shapes (n, s, s, 3) and (n, n_numbers), to
        probabilities, shape (n, n_classes).

    Raises:
        UserError: the network's last layer is not a dense layer.
    """
    last = network.layers[-1]
    if not isinstance(last, layers.Dense) or last.output is not network.outputs[0]:
        raise UserError(
            f"metadata=patient: architecture={network.name} cannot use patient metadata: its "
            f"last layer, to whose input the metadata is joined, is a {type(last).__name__}; "
            "expected a Dense layer, or metadata=none."
        )
    metadata = keras.Input((n_numbers,), name=METADATA)
    # Float32 even under mixed precision, like the last layer: it costs next to nothing.
    branch = layers.Dense(
        width,
        activation="relu",
        dtype="float32",
        kernel_regularizer=regulariser.kernel_penalty(),
        name=BRANCH,
    )(metadata)
    joined = layers.Concatenate(dtype="float32", name=JOINED)([last.input, branch])
    wider = layers.Dense.from_config(last.get_config())
    return keras.Model((network.input, metadata), wider(joined), name=network.name)


def has_metadata_branch(network: keras.Model) -> bool:
    """Return whether a network was built by ``add_metadata_branch``."""
    return any(layer.name == JOINED for layer in network.layers)


def add_metadata_encoding(network: keras.Model, encoding: PatientEncoder) -> keras.Model:
    """Wrap a network so that it takes raw patient metadata.

    Args:
        network: model from (pixels, encoded metadata) to probabilities.

    Returns:
        Model that shares the network's weights. It takes a dictionary of pixels, shape
        (n, s, s, 3), and a column, shape (n, 1), for each column of the encoder. ``age`` is float32
        in years; NaN or a value below 0 is missing. Every other column is an int32 index into the
        ``values`` of the encoder's column; an index out of range, such as -1, is missing.
    """
    inputs = {PIXELS: keras.Input(network.inputs[0].shape[1:], name=PIXELS)}
    parts = []
    for name, column in encoding.columns.items():
        if isinstance(column, AgeScaler):
            inputs[name] = keras.Input((1,), dtype="float32", name=name)
            parts += _encode_age(inputs[name], column)
        else:
            inputs[name] = keras.Input((1,), dtype="int32", name=name)
            # An index out of range gives a row of zeros.
            one_hot = ops.one_hot(ops.squeeze(inputs[name], axis=-1), len(column.values))
            parts.append(one_hot)
            if column.missing:
                parts.append(1.0 - ops.sum(one_hot, axis=-1, keepdims=True))
    encoded = layers.Concatenate(dtype="float32", name="encoded")(parts)
    return keras.Model(inputs, network((inputs[PIXELS], encoded)), name=network.name)


def _encode_age(age: Any, scale: AgeScaler) -> list[Any]:
    """Encode ages in years as ``AgeScaler.encode`` does."""
    missing = ops.logical_or(ops.isnan(age), age < 0.0)
    scaled = ops.where(missing, 0.0, (age - scale.mean) / scale.sd)
    return [scaled, ops.cast(missing, "float32")][: scale.width]


HEIGHT, WIDTH = 1, 2


def add_test_time_augmentation(network: keras.Model, tta: Tta) -> keras.Model:
    """Return a model that averages a network's probabilities over views of an image.

    A photograph of a lesion has no natural orientation, so that every view is equally valid. The
    views are part of the model, and therefore of the saved model.

    Args:
        network: model from pixels, shape (n, s, s, 3), perhaps with metadata, to probabilities,
            shape (n, n_classes). Metadata are the same for all views.

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
