"""A network as it is handed over: named inputs, raw bytes, float32. Everything here needs Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import keras
from keras import ops

from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.network import find_pixel_input
from melanoma_lab.input_pipeline.model_inputs import PIXELS
from melanoma_lab.models.inputs import get_named_inputs

#: What the output is called, where a format has names.
PROBABILITIES: Final = "probabilities"
#: A code that is no place in any list of values: what is not known.
_NOWHERE: Final = 2**30


def convert_to_float32(network: keras.Model) -> keras.Model:
    """The same network computing in float32, whatever precision it was trained in.

    Runtimes of other programs compute half precision in ways of their own, or not at all; weights
    are float32 in any case.

    Args:
        network: of layers that Keras knows.

    Returns:
        The network itself where it computes in float32.
    """
    if all(_computes_in_float32(layer) for layer in _flattened(network)):
        return network
    described = _without_mixing(keras.saving.serialize_keras_object(network))
    copy = keras.saving.deserialize_keras_object(described, safe_mode=True)
    copy.set_weights(network.get_weights())
    return copy


def build_serving_network(network: keras.Model, path: Path) -> keras.Model:
    """A network as every format exports it.

    Args:
        network: as ``load_classifier`` gives it, computing in float32.
        path: of its file, for messages.

    Returns:
        From ``pixels``, uint8, shape (n, s, s, 3), to a dictionary with ``probabilities``, float32,
        shape (n, n_classes). Where the network takes metadata, from a dictionary of pixels and
        columns, shape (n, 1), as the network has them.

    Raises:
        UserError: it takes several inputs and does not say which is which.
    """
    taken = get_named_inputs(network)
    if taken is not None:
        inputs = {
            name: keras.Input(
                tensor.shape[1:],
                dtype="uint8" if len(tensor.shape) == 4 else tensor.dtype,
                name=name,
            )
            for name, tensor in taken.items()
        }
        answers = network({name: _as_taken(inputs[name], taken[name]) for name in taken})
        return keras.Model(inputs, {PROBABILITIES: answers})
    if len(network.inputs) > 1:
        raise UserError(f"{path}: takes several inputs without names; expected a dictionary.")
    pixels = keras.Input(find_pixel_input(network).shape[1:], dtype="uint8", name=PIXELS)
    return keras.Model(pixels, {PROBABILITIES: network(ops.cast(pixels, "float32"))})


def _as_taken(given: Any, taken: Any) -> Any:
    """An input of the exported network as the network within takes it."""
    if len(taken.shape) == 4:
        return ops.cast(given, taken.dtype)
    if taken.dtype.startswith("int"):
        # Of a code below zero ONNX counts from the end of the values, where TensorFlow finds none.
        return ops.where(given < 0, _NOWHERE, given)
    return given


def _flattened(network: keras.Model) -> list[Any]:
    """All layers of a network and of the networks within it."""
    found = []
    for layer in network.layers:
        found += _flattened(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _computes_in_float32(layer: Any) -> bool:
    return str(layer.dtype_policy.name) not in {"mixed_bfloat16", "mixed_float16"}


def _without_mixing(node: Any) -> Any:
    """A network's description with every mixed policy taken for float32."""
    if isinstance(node, dict):
        return {key: _without_mixing(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_without_mixing(value) for value in node)
    return "float32" if node in ("mixed_bfloat16", "mixed_float16") else node
