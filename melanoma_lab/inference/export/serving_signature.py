"""The exported form of a network: named inputs, uint8 pixels, computing in float32; needs Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import keras
from keras import ops

from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.export.formats import PROBABILITIES
from melanoma_lab.inference.network import find_pixel_input
from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.training.finetuning import iterate_layers

#: A code beyond the end of any list of values, which stands for a missing value.
_MISSING: Final = 2**30


def convert_to_float32(network: keras.Model) -> keras.Model:
    """Return the same network computing in float32, whatever precision it was trained in.

    Other runtimes compute half precision differently, or not at all; the weights are float32 in any
    case. It is a copy, or the network itself if it already computes in float32.
    """
    if all(_computes_in_float32(layer) for layer in iterate_layers(network)):
        return network
    description = _replace_mixed_policies(keras.saving.serialize_keras_object(network))
    copy = keras.saving.deserialize_keras_object(description, safe_mode=True)
    copy.set_weights(network.get_weights())
    return copy


def build_serving_network(network: keras.Model, path: Path) -> keras.Model:
    """Build the network that is exported in every format, from one that computes in float32.

    ``path`` is the path of its file, for messages.

    Returns:
        A network from ``pixels``, uint8, shape (n, s, s, 3), to a dictionary with
        ``probabilities``, float32, shape (n, n_classes). If it uses metadata, its input is a
        dictionary of pixels and columns; columns have shape (n, 1) and the network's own types.

    Raises:
        UserError: the network has several inputs without names.
    """
    named = get_named_inputs(network)
    if named is not None:
        inputs = {
            name: keras.Input(
                tensor.shape[1:],
                dtype="uint8" if len(tensor.shape) == 4 else tensor.dtype,
                name=name,
            )
            for name, tensor in named.items()
        }
        probabilities = network({name: _convert(inputs[name], named[name]) for name in named})
        return keras.Model(inputs, {PROBABILITIES: probabilities})
    if len(network.inputs) > 1:
        raise UserError(f"{path}: takes several inputs without names; expected a dictionary.")
    pixels = keras.Input(find_pixel_input(network).shape[1:], dtype="uint8", name=PIXELS)
    return keras.Model(pixels, {PROBABILITIES: network(ops.cast(pixels, "float32"))})


def _convert(exported: Any, wanted: Any) -> Any:
    """Convert an input of the exported network to the input of the network inside it."""
    if len(wanted.shape) == 4:
        return ops.cast(exported, wanted.dtype)
    if wanted.dtype.startswith("int"):
        # ONNX counts a code below zero from the end of the values; TensorFlow finds no value.
        return ops.where(exported < 0, _MISSING, exported)
    return exported


def _computes_in_float32(layer: Any) -> bool:
    return str(layer.dtype_policy.name) not in {"mixed_bfloat16", "mixed_float16"}


def _replace_mixed_policies(node: Any) -> Any:
    """Replace every mixed precision policy in a serialised network by float32."""
    if isinstance(node, dict):
        return {key: _replace_mixed_policies(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_replace_mixed_policies(value) for value in node)
    return "float32" if node in ("mixed_bfloat16", "mixed_float16") else node
