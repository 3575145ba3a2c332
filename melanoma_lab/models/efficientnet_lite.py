"""EfficientNet-Lite: EfficientNet without operations that are slow on processors.

It is the network of Tan and Le, "EfficientNet", ICML 2019, with ReLU6 instead of swish, without
squeeze-and-excitation, and with an unscaled stem, top, first and last stage ("Higher accuracy on
vision models with EfficientNet-Lite", TensorFlow blog, 2020). Pixels are scaled as (x - 127) / 128.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from melanoma_lab.config.schema.architecture import EfficientNetLite
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.backbones import BACKBONE, add_classification_head, load_weights
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.models.torch_file import read_torch_file
from melanoma_lab.models.weight_files import find_weights
from melanoma_lab.registry import builder

#: Smallest side of the image in pixels: it is halved five times.
SMALLEST = 32


@dataclass(frozen=True)
class _Stage:
    """Blocks of one kind: their number, kernel size, first stride, expansion and channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


#: The stages of EfficientNet-B0.
STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
#: Factors on the width and depth of the stages.
SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
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


@builder("architecture", "efficientnet_lite0")
@builder("architecture", "efficientnet_lite1")
@builder("architecture", "efficientnet_lite2")
def efficientnet_lite(
    architecture: EfficientNetLite, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build the backbone with its configured weights, and a new classification head."""
    if image_size < SMALLEST:
        raise UserError(
            f"dataset.image_size={image_size}: architecture={architecture.name} halves the image 5 "
            f"times; expected at least {SMALLEST}."
        )
    width, depth = SCALES[architecture.name]
    backbone = build_lite_backbone(image_size, width, depth, regulariser)
    found = find_weights(architecture)
    if found is not None and found.path.suffix == ".pth":
        set_torch_weights(backbone, read_torch_file(found.path), found.path)
    else:
        load_weights(backbone, architecture)
    return add_classification_head(backbone, n_classes, regulariser, name=architecture.name)


def build_lite_backbone(
    image_size: int, width: float, depth: float, regulariser: Regulariser
) -> keras.Model:
    """Build the backbone, from raw pixels to 1,280 features.

    Args:
        width: factor on the number of channels, which is rounded to a multiple of 8.
        depth: factor on the number of blocks of a stage.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32", name="scale")(pixels)
    x = _normalise(
        layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem", **_kernel(regulariser))(x),
        "stem",
    )
    stages = [
        # The first and the last stage are not scaled.
        (stage, stage.repeats if i in {0, len(STAGES) - 1} else math.ceil(stage.repeats * depth))
        for i, stage in enumerate(STAGES)
    ]
    n_blocks, block = sum(repeats for _, repeats in stages), 0
    for i, (stage, repeats) in enumerate(stages, 1):
        for j in range(repeats):
            name = f"block{i}{'abcdefgh'[j]}"
            filters = _filters(stage.filters, width)
            scaled = replace(stage, stride=stage.stride if j == 0 else 1, filters=filters)
            branch = _add_branch(x, scaled, regulariser, name)
            if branch.shape[1:] == x.shape[1:]:
                branch = regulariser.residual(branch, block, n_blocks)
                branch = layers.Add(name=f"{name}_add")([branch, x])
            x = branch
            block += 1
    x = layers.Conv2D(1280, 1, use_bias=False, name="top", **_kernel(regulariser))(x)
    x = _normalise(x, "top")
    features = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, features, name=BACKBONE)


def _add_branch(x: Any, stage: _Stage, regulariser: Regulariser, name: str) -> Any:
    """Add an inverted residual branch (Sandler et al., 2018): expand, depthwise, project."""
    if stage.expansion > 1:
        widened = x.shape[-1] * stage.expansion
        x = layers.Conv2D(
            widened, 1, use_bias=False, name=f"{name}_expand", **_kernel(regulariser)
        )(x)
        x = _normalise(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        stage.stride,
        "same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise",
    )(x)
    x = _normalise(x, f"{name}_depthwise")
    x = layers.Conv2D(
        stage.filters, 1, use_bias=False, name=f"{name}_project", **_kernel(regulariser)
    )(x)
    return _normalise(x, f"{name}_project", relu=False)


def _normalise(x: Any, name: str, *, relu: bool = True) -> Any:
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x


def _kernel(regulariser: Regulariser) -> dict[str, Any]:
    return {
        "kernel_initializer": _initializer(),
        "kernel_regularizer": regulariser.kernel_penalty(),
    }


def _initializer() -> keras.Initializer:
    """Return the original's initialiser: normal, scaled by the number of outputs."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _filters(filters: int, width: float) -> int:
    """Scale and round a number of channels to a multiple of 8, without losing more than a tenth."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def set_torch_weights(
    backbone: keras.Model, tensors: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """Set the weights of a backbone's layers from PyTorch's tensors.

    Args:
        tensors: tensors by PyTorch's names; those of the classifier are ignored.

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
    """Return a tensor in Keras's order of dimensions.

    The kernel of a convolution is (out, in, height, width) in PyTorch and (height, width, in, out)
    in Keras. A depthwise one is (channels, 1, height, width) and (height, width, channels, 1).
    """
    if tensor.ndim != 4:
        return tensor
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return np.transpose(tensor, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
