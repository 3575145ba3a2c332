"""Where in a network features are last laid out as an image, and what it then decides by.

Keras's functional models are graphs, but a model within a model is one node of it, so that a tensor
inside cannot be asked for from outside ("graph disconnected"). Here a network is applied step by
step, and so is every model inside it: backbones, members of an ensemble, what views or an encoding
of metadata surround. The network itself is not changed, and no copy of it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import layers

from melanoma_lab.core.errors import UserError

#: What comes of a layer of these tells places apart no better than what went in; pooled, worse.
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
    """Features that are laid out as an image.

    Attributes:
        number: in which place of the network, the same whenever it is applied.
        values: float, shape (n, h, w, c).
    """

    number: int
    values: Any


@dataclass(frozen=True)
class NetworkOutput:
    """One decision of a network.

    Attributes:
        maps: the last ones before it; None: no convolution made any.
        scores: of the classes, before the softmax, shape (n, K).
        is_original_view: whether it is about the image itself, and not a mirrored or turned view.
    """

    maps: FeatureMaps | None
    scores: Any
    is_original_view: bool = True


#: Told of maps when they are there and nothing has been computed of them yet.
FeatureMapsListener = Callable[[FeatureMaps], None]


def trace_feature_maps(
    network: keras.Model, inputs: Sequence[Any], on_maps: FeatureMapsListener = lambda _: None
) -> list[NetworkOutput]:
    """Apply a network, in inference mode.

    Args:
        network: functional or sequential, from pixels, shape (n, s, s, 3), and perhaps others, to
            probabilities by a softmax, or to the mean of several such.
        inputs: a tensor for each of its ``inputs``.
        on_maps: called in the order in which they are computed.

    Returns:
        Those whose mean is what the network answers; of several views of an image, the one of the
        image as it is. Further views are not computed.

    Raises:
        UserError: the network has no convolution, or ends in another way.
    """
    _, part = _Walk(on_maps).through(network, inputs)
    if not part.answers:
        raise UserError(
            f"No Grad-CAM of {network.name}: it ends in {_ending(network)}; expected a "
            "softmax over the classes, or the mean (Average) of several."
        )
    if any(answer.maps is None for answer in part.answers):
        raise UserError(
            f"No Grad-CAM of {network.name}: nothing that a convolution makes is laid "
            "out as an image in it, and that is what Grad-CAM weights."
        )
    return part.answers


@dataclass
class _Part:
    """What has been met in a model.

    Attributes:
        maps: the last ones.
        convolved: whether a convolution came before.
        answers: behind its output; none where that is no probabilities.
    """

    maps: FeatureMaps | None = None
    convolved: bool = False
    answers: list[NetworkOutput] = field(default_factory=list)


class _Walk:
    """One way through a network and all models in it."""

    def __init__(self, on_maps: FeatureMapsListener) -> None:
        self._on_maps = on_maps
        self._met = 0

    def through(self, model: keras.Model, inputs: Sequence[Any]) -> tuple[list[Any], _Part]:
        """A model's outputs, and what was met."""
        part = _Part()
        behind: dict[int, list[NetworkOutput]] = {}  # a tensor of probabilities -> its answers
        answered: dict[int, list[Any]] = {}  # a model that has answered of the image -> outputs
        image = _image_of(inputs)

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            taken = keras.tree.flatten(args)
            if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
                as_it_is = _image_of(taken) is image
                if not as_it_is and id(operation) in answered:
                    return answered[id(operation)]  # a view that does not count
                outputs, inner = self.through(operation, taken)
                behind[id(outputs[0])] = [
                    replace(answer, is_original_view=answer.is_original_view and as_it_is)
                    for answer in inner.answers
                ]
                if inner.answers and as_it_is:
                    answered[id(operation)] = outputs
                part.convolved |= inner.convolved
                part.maps = inner.maps or part.maps
                return outputs
            output = operation(*args, **kwargs)
            if _is_softmax(operation):
                behind[id(output)] = [NetworkOutput(part.maps, _scores(operation, taken[0]))]
            elif isinstance(operation, layers.Average):
                unique = {id(tensor): tensor for tensor in taken}
                together = [answer for each in unique for answer in behind.get(each, [])]
                behind[id(output)] = [one for one in together if one.is_original_view] or together
            part.convolved |= any(len(w.shape) == 4 for w in getattr(operation, "weights", ()))
            if (
                part.convolved
                and _is_image(output)
                and not isinstance(operation, PASS_THROUGH_LAYERS)
            ):
                part.maps = FeatureMaps(self._met, output)
                self._met += 1
                self._on_maps(part.maps)
            return output

        # As ``keras.models.clone_model`` does it; the public ways make further nodes of a graph.
        graph = keras.Function(model.inputs, model.outputs)
        outputs = graph._run_through_graph(list(inputs), lambda layer: layer, call)  # noqa: SLF001
        part.answers = behind.get(id(outputs[0]), []) if len(outputs) == 1 else []
        return outputs, part


def _image_of(tensors: Sequence[Any]) -> Any:
    """The one of them that is laid out as an image; None: there is none."""
    return next((tensor for tensor in tensors if _rank(tensor) == 4), None)


def _rank(tensor: Any) -> int:
    return len(getattr(tensor, "shape", ()))


def _is_image(output: Any) -> bool:
    """Whether a tensor still says where: (n, h, w, c), and not of a single place."""
    return _rank(output) == 4 and tuple(output.shape[1:3]) != (1, 1)


def _is_softmax(operation: Any) -> bool:
    """A layer that ends in one, a layer that is one, or the bare operation."""
    ends_in = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or ends_in is keras.activations.softmax


def _scores(operation: Any, taken: Any) -> Any:
    """What a softmax is taken of."""
    if not isinstance(operation, layers.Dense):
        return taken
    taken = keras.ops.cast(taken, operation.compute_dtype)
    scores = keras.ops.matmul(taken, operation.kernel)
    return scores if operation.bias is None else keras.ops.add(scores, operation.bias)


def _ending(network: keras.Model) -> str:
    last = network.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    return f"a {type(last).__name__} layer" + (f" with {activation}" if activation else "")
