"""Metadata in a network: joined before its last layer, and encoded inside the model that is kept.

In training a network takes what ``melanoma_lab.data.patient_metadata`` has encoded. The model that
is tracked takes an age in years and codes: its encoding is made of Keras's own operations, so that
Keras's safe mode reads it wherever it is served. Words would have to be strings, which Keras 3.15
refuses from NumPy arrays in ``predict``, and so behind ``mlflow models serve``.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.patient_metadata import AgeScaler, PatientEncoder
from melanoma_lab.input_pipeline.model_inputs import METADATA, PIXELS
from melanoma_lab.models.inputs import get_image_shape
from melanoma_lab.models.regularisation import Regulariser

#: The layer that metadata pass, and the one that joins what comes of them to the features.
BRANCH, JOINED = "metadata_dense", "metadata_joined"


def add_metadata_branch(
    network: keras.Model, n_numbers: int, *, width: int, regulariser: Regulariser
) -> keras.Model:
    """A network that knows of the patient what it is told beside the image.

    Encoded metadata pass one dense layer and are joined to the features, which the network's last
    layer takes: a dense one, as all of the lab's have, and any network of a user's that ends so. A
    fresh one, as wide as both, takes its place.

    Args:
        network: from pixels to probabilities, with fresh weights.
        n_numbers: that metadata are encoded in.
        width: units of the layer that they pass.
        regulariser: puts its penalty on that layer's kernel.

    Returns:
        From (pixels, metadata), float32, shapes (n, s, s, 3) and (n, n_numbers), to probabilities.

    Raises:
        UserError: the network ends otherwise.
    """
    last = network.layers[-1]
    if not isinstance(last, layers.Dense) or last.output is not network.outputs[0]:
        raise UserError(
            f"metadata=patient: architecture={network.name} has no place for them: they are joined "
            f"to what its last layer takes, and that is a {type(last).__name__}; expected a Dense "
            "layer, or metadata=none."
        )
    metadata = keras.Input((n_numbers,), name=METADATA)
    # In float32 under mixed precision too, as the last layer is: it costs next to nothing.
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
    """Whether ``add_metadata_branch`` made it."""
    return any(layer.name == JOINED for layer in network.layers)


def add_metadata_encoding(network: keras.Model, encoding: PatientEncoder) -> keras.Model:
    """A model that takes what is known of a patient as it is known.

    Args:
        network: from (pixels, encoded metadata) to probabilities.
        encoding: of the metadata.

    Returns:
        From a dictionary of pixels, shape (n, s, s, 3), and a column, shape (n, 1), for each of the
        encoding's: ``age``, float32, years, missing where NaN or below 0; others int32 codes, which
        are places in the encoding's ``values``, missing where there is none such (-1). It shares
        the network's weights.
    """
    taken = {PIXELS: keras.Input(get_image_shape(network), name=PIXELS)}
    parts = []
    for name, column in encoding.columns.items():
        if isinstance(column, AgeScaler):
            taken[name] = keras.Input((1,), dtype="float32", name=name)
            parts += _scaled(taken[name], column)
        else:
            taken[name] = keras.Input((1,), dtype="int32", name=name)
            # A code outside gives a row of zeros.
            known = ops.one_hot(ops.squeeze(taken[name], axis=-1), len(column.values))
            parts.append(known)
            if column.missing:
                parts.append(1.0 - ops.sum(known, axis=-1, keepdims=True))
    encoded = layers.Concatenate(dtype="float32", name="encoded")(parts)
    return keras.Model(taken, network((taken[PIXELS], encoded)), name=network.name)


def _scaled(age: Any, scale: AgeScaler) -> list[Any]:
    """As ``AgeScaler.encode``."""
    missing = ops.logical_or(ops.isnan(age), age < 0.0)
    scaled = ops.where(missing, 0.0, (age - scale.mean) / scale.sd)
    return [scaled, ops.cast(missing, "float32")][: scale.width]
