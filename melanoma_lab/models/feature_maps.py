"""Find a network's last spatial feature maps and its class scores before the softmax.

A functional model of Keras is a graph, but a nested model is only one node of it, so that tensors
inside it cannot be outputs of the outer model ("graph disconnected"). Therefore this module applies
a network and all its nested models layer by layer: backbones, members of an ensemble, and models
inside test-time augmentation or an encoding of metadata. It neither changes nor copies the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import layers

from melanoma_lab.core.errors import UserError

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
        inputs: a tensor for each of the network's ``inputs``.
        on_maps: called with all feature maps in the order in which they are computed.

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
