"""Grad-CAM heat maps: which areas of an image raise a network's score of a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The last feature maps are added up, each weighted by the mean gradient of
the class's score with respect to it, and negative sums are set to 0. For a network of feature maps,
global average pooling and one dense layer, this equals the class activation map of Zhou et al.,
CVPR 2016, up to a factor.

* **Scores** are those before the softmax, as in the paper. The gradient of a probability vanishes
  if the network is confident, so that the maps of the most confident predictions would be noise or
  empty; and it also contains evidence against other classes. Scores are computed from the weights
  of the last layer; removing its softmax would change the network.
* **Feature maps** are the last ones with spatial dimensions, after normalisation, activation and
  residual sum, but before any pooling. (Most programs take the output of the last convolution,
  but later layers may change its signs.)
* **Views** of test-time augmentation are not averaged: the heat map is that of the original image.
  **Members of an ensemble** are averaged. Each map is scaled first, so that all count equally.

A heat map is as coarse as the feature maps (7 x 7 cells, for example). It does not say whether the
prediction is right, nor that the network would predict another class without that area.

A functional model of Keras is a graph, but a nested model is only one node of it, so that tensors
inside it cannot be outputs of the outer model ("graph disconnected"). Therefore a network and all
its nested models are applied layer by layer: backbones, members of an ensemble, and models inside
test-time augmentation or an encoding of metadata. The network is neither changed nor copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError

#: Number of pixels of the images in one batch, which has at least eight images. All features of a
#: batch are in memory at the same time.
AT_ONCE = 400_000
#: Number of dimensions of a batch of images or feature maps.
IMAGE = 4


class GradCam:
    """Computes Grad-CAM heat maps of one network for many images, and finds its maps only once.

    Args:
        network: model from pixels to probabilities: any architecture of this package, also with
            test-time augmentation or metadata, or an ensemble; or a user's network with a
            convolution and a softmax at its end. It is not changed.

    Attributes:
        places: rows and columns of the weighted feature maps; of an ensemble's finest maps.

    Raises:
        UserError: the network has no convolution, or does not end with a softmax.
    """

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._images = [len(tensor.shape) == IMAGE for tensor in network.inputs]
        black = [tf.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in network.inputs]
        outputs = trace_feature_maps(network, black)
        maps = [output.maps for output in outputs if output.maps]
        self._map_numbers = {feature_maps.number for feature_maps in maps}
        shapes = [feature_maps.values.shape[1:3] for feature_maps in maps]
        self.places: tuple[int, int] = max((int(rows), int(columns)) for rows, columns in shapes)

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        classes: NDArray[np.intp],
        other_inputs: Sequence[NDArray[np.generic]] = (),
    ) -> NDArray[np.float32]:
        """Compute the Grad-CAM heat map of each image for a given class.

        Args:
            pixels: uint8, shape (n, s, s, 3), values 0 to 255.
            classes: intp, shape (n,): class index of each image, from 0 to K - 1.
            other_inputs: the network's other inputs in order, such as metadata; each of shape
                (n, d).

        Returns:
            float32, shape (n, s, s), values 0 to 1. The maximum of a map is 1, or 0 if nothing in
            the image raises the score of its class.
        """
        if len(other_inputs) != len(self._images) - 1:
            raise ValueError(
                f"Expected {len(self._images) - 1} inputs beside pixels. "
                f"Received {len(other_inputs)}."
            )
        heat_maps = np.zeros(pixels.shape[:3], np.float32)
        n = max(8, AT_ONCE // max(1, pixels.shape[1] * pixels.shape[2]))
        for start in range(0, len(pixels), n):
            part = slice(start, start + n)
            others = iter(other_inputs)
            inputs = [
                tf.cast(pixels[part] if is_image else next(others)[part], tensor.dtype)
                for is_image, tensor in zip(self._images, self._network.inputs, strict=True)
            ]
            for coarse in _weight_maps(self._network, inputs, classes[part], self._map_numbers):
                fine = tf.image.resize(coarse[..., None], heat_maps.shape[1:], "bilinear")
                heat_maps[part] += _scale_to_one(fine[..., 0].numpy())
        return _scale_to_one(heat_maps)


def _weight_maps(
    network: keras.Model, inputs: Sequence[Any], classes: NDArray[np.intp], map_numbers: set[int]
) -> list[Any]:
    """Compute equations 1 and 2 of Selvaraju et al. for each output; float32, shape (n, h, w).

    The gradient tape records nothing before the last feature maps, which saves memory.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watch(maps: FeatureMaps) -> None:
            if maps.number in map_numbers:
                tape.watch(maps.values)

        outputs = trace_feature_maps(network, inputs, watch)
        # Images and members do not influence each other, so that one gradient serves them all.
        chosen = [tf.gather(output.scores, classes, axis=1, batch_dims=1) for output in outputs]
        total = tf.add_n([tf.reduce_sum(scores) for scores in chosen])
    maps = [output.maps.values for output in outputs if output.maps]
    weighted = []
    for values, gradient in zip(maps, tape.gradient(total, maps), strict=True):
        weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=(1, 2), keepdims=True)
        summed = tf.reduce_sum(weights * tf.cast(values, tf.float32), axis=-1)
        weighted.append(tf.nn.relu(summed))
    return weighted


def _scale_to_one(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each map so that its maximum is 1; a map of zeros stays unchanged."""
    highest = maps.max(axis=(1, 2), keepdims=True, initial=0.0)
    scaled: NDArray[np.float32] = np.divide(
        maps, highest, out=np.zeros_like(maps), where=highest > 0
    )
    return scaled


#: Layers whose output localises features no better than their input; pooling makes it worse.
PASS_THROUGH_LAYERS = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ZeroPadding2D,
)


@dataclass(frozen=True)
class FeatureMaps:
    """A layer's output with spatial dimensions.

    Attributes:
        number: position in the order of computation, the same whenever the network is applied.
        values: float, shape (n, h, w, c).
    """

    number: int
    values: Any


@dataclass(frozen=True)
class NetworkOutput:
    """One softmax output of a network.

    Attributes:
        maps: the last feature maps before it; None if no convolution has computed any.
        scores: scores of the classes before the softmax, float, shape (n, K).
        is_original_view: whether it belongs to the image itself, not to a mirrored or rotated view.
    """

    maps: FeatureMaps | None
    scores: Any
    is_original_view: bool = True


#: Called with feature maps before anything is computed from them.
FeatureMapsListener = Callable[[FeatureMaps], None]


def trace_feature_maps(
    network: keras.Model, inputs: Sequence[Any], on_maps: FeatureMapsListener = lambda _: None
) -> list[NetworkOutput]:
    """Apply a network in inference mode and return its softmax outputs with their feature maps.

    Args:
        network: functional or sequential model from pixels, shape (n, s, s, 3), and perhaps other
            inputs, to the probabilities of a softmax, or to the mean of several softmax outputs.

    Returns:
        The outputs whose mean is the network's prediction. With test-time augmentation, only the
        outputs for the original image; other views are not computed.

    Raises:
        UserError: the network has no convolution, or does not end with a softmax or such a mean.
    """
    _, trace = _Tracer(on_maps).apply(network, inputs)
    if not trace.outputs:
        raise UserError(
            f"No Grad-CAM of {network.name}: it ends in {_describe_ending(network)}; expected a "
            "softmax over the classes, or the mean (Average) of several."
        )
    if any(output.maps is None for output in trace.outputs):
        raise UserError(
            f"No Grad-CAM of {network.name}: it has no feature maps of a convolution with a "
            "height and a width, which Grad-CAM needs."
        )
    return trace.outputs


@dataclass
class _Trace:
    """State collected while a model is applied.

    Attributes:
        maps: the last feature maps so far.
        convolved: whether a convolution was applied so far.
        outputs: softmax outputs of which the model returns the mean; empty if it does not return
            probabilities.
    """

    maps: FeatureMaps | None = None
    convolved: bool = False
    outputs: list[NetworkOutput] = field(default_factory=list)


class _Tracer:
    """Applies a network and all its nested models, and counts feature maps."""

    def __init__(self, on_maps: FeatureMapsListener) -> None:
        self._on_maps = on_maps
        self._n_maps = 0

    def apply(self, model: keras.Model, inputs: Sequence[Any]) -> tuple[list[Any], _Trace]:
        """Return a model's output tensors, and the state collected while it was applied."""
        trace = _Trace()
        # Softmax outputs by the id of the tensor that holds them or their mean.
        sources: dict[int, list[NetworkOutput]] = {}
        # Tensors by the id of the nested model that computed them from the original image.
        computed: dict[int, list[Any]] = {}
        image = _find_image(inputs)

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            tensors = keras.tree.flatten(args)
            if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
                is_original = _find_image(tensors) is image
                if not is_original and id(operation) in computed:
                    return computed[id(operation)]  # another view, which is not needed
                outputs, inner = self.apply(operation, tensors)
                sources[id(outputs[0])] = [
                    replace(source, is_original_view=source.is_original_view and is_original)
                    for source in inner.outputs
                ]
                if inner.outputs and is_original:
                    computed[id(operation)] = outputs
                trace.convolved |= inner.convolved
                trace.maps = inner.maps or trace.maps
                return outputs
            output = operation(*args, **kwargs)
            if _is_softmax(operation):
                scores = _compute_scores(operation, tensors[0])
                sources[id(output)] = [NetworkOutput(trace.maps, scores)]
            elif isinstance(operation, layers.Average):
                unique = {id(tensor): tensor for tensor in tensors}
                averaged = [source for each in unique for source in sources.get(each, [])]
                originals = [source for source in averaged if source.is_original_view]
                sources[id(output)] = originals or averaged
            trace.convolved |= any(len(w.shape) == 4 for w in getattr(operation, "weights", ()))
            if (
                trace.convolved
                and _is_spatial(output)
                and not isinstance(operation, PASS_THROUGH_LAYERS)
            ):
                trace.maps = FeatureMaps(self._n_maps, output)
                self._n_maps += 1
                self._on_maps(trace.maps)
            return output

        # As in ``keras.models.clone_model``; Keras's public functions would extend the graph.
        graph = keras.Function(model.inputs, model.outputs)
        outputs = graph._run_through_graph(list(inputs), lambda layer: layer, call)  # noqa: SLF001
        trace.outputs = sources.get(id(outputs[0]), []) if len(outputs) == 1 else []
        return outputs, trace


def _find_image(tensors: Sequence[Any]) -> Any:
    """Return the first tensor with the shape of a batch of images, or None."""
    return next((tensor for tensor in tensors if _rank(tensor) == 4), None)


def _rank(tensor: Any) -> int:
    return len(getattr(tensor, "shape", ()))


def _is_spatial(output: Any) -> bool:
    """Return whether a tensor has shape (n, h, w, c) with more than one position."""
    return _rank(output) == 4 and tuple(output.shape[1:3]) != (1, 1)


def _is_softmax(operation: Any) -> bool:
    """Return whether a layer or operation is a softmax, or a layer has a softmax activation."""
    activation = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or activation is keras.activations.softmax


def _compute_scores(operation: Any, inputs: Any) -> Any:
    """Compute the scores before the softmax from the inputs of its layer or operation."""
    if not isinstance(operation, layers.Dense):
        return inputs
    inputs = keras.ops.cast(inputs, operation.compute_dtype)
    scores = keras.ops.matmul(inputs, operation.kernel)
    return scores if operation.bias is None else keras.ops.add(scores, operation.bias)


def _describe_ending(network: keras.Model) -> str:
    last = network.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    return f"a {type(last).__name__} layer" + (f" with {activation}" if activation else "")
