"""Convert EfficientNet-Lite's weights from PyTorch to Keras.

The kernel of a convolution is (out, in, height, width) in PyTorch and (height, width, in, out) in
Keras. A depthwise one is (channels, 1, height, width) and (height, width, channels, 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError

#: PyTorch's names of the layers of a block, by Keras's.
IN_A_BLOCK = {
    "expand": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project": "_project_conv",
    "project_bn": "_bn2",
}
OUTSIDE = {"stem": "_conv_stem", "stem_bn": "_bn0", "top": "_conv_head", "top_bn": "_bn1"}
#: PyTorch's names of the arrays of a batch normalisation, in Keras's order.
NORMALISATION = ("weight", "bias", "running_mean", "running_var")


def set_torch_weights(
    backbone: keras.Model, tensors: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """Set the weights of a backbone's layers from PyTorch's tensors.

    Args:
        backbone: model built by ``melanoma_lab.models.architectures.efficientnet_lite``.
        tensors: tensors by PyTorch's names; those of the classifier are ignored.
        path: path of the file, for messages.

    Raises:
        UserError: a tensor is missing, is not used, or has another shape.
    """
    used: set[str] = set()
    for layer, prefix in _match_layers(backbone):
        names = (
            [f"{prefix}.{name}" for name in NORMALISATION]
            if isinstance(layer, keras.layers.BatchNormalization)
            else [f"{prefix}.weight"]
        )
        missing = [name for name in names if name not in tensors]
        if missing:
            raise UserError(f"{path}: not these weights: there is no {missing[0]}.")
        values = [_transpose(tensors[name], layer) for name in names]
        for name, value, weight in zip(names, values, layer.weights, strict=True):
            if value.shape != tuple(weight.shape):
                raise UserError(
                    f"{path}: not these weights: {name} has shape {tensors[name].shape}, which "
                    f"does not fit {layer.name}, {tuple(weight.shape)}."
                )
        layer.set_weights(values)
        used.update(names)
    unused = [
        name
        for name in tensors
        if name not in used and not name.startswith("_fc.") and "num_batches" not in name
    ]
    if unused:
        raise UserError(f"{path}: not these weights: {unused[0]} has no place in the network.")


def _match_layers(backbone: keras.Model) -> Iterator[tuple[keras.layers.Layer, str]]:
    """Yield every layer that has weights, with the prefix of its tensors' names in PyTorch."""
    blocks: list[str] = []
    for layer in backbone.layers:
        if not layer.weights:
            continue
        if layer.name in OUTSIDE:
            yield layer, OUTSIDE[layer.name]
            continue
        block, _, part = layer.name.partition("_")
        if block not in blocks:
            blocks.append(block)
        yield layer, f"_blocks.{blocks.index(block)}.{IN_A_BLOCK[part]}"


def _transpose(tensor: NDArray[Any], layer: keras.layers.Layer) -> NDArray[Any]:
    if tensor.ndim != 4:
        return tensor
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return np.transpose(tensor, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
