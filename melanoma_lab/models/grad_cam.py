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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma_lab.models.feature_maps import FeatureMaps, trace_feature_maps

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
        outputs = trace_feature_maps(network, _make_zero_inputs(network))
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


def _make_zero_inputs(network: keras.Model) -> list[Any]:
    """Return one black image, and zeros for the network's other inputs."""
    return [tf.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in network.inputs]


def _weight_maps(
    network: keras.Model, inputs: Sequence[Any], classes: NDArray[np.intp], map_numbers: set[int]
) -> list[Any]:
    """Compute equations 1 and 2 of Selvaraju et al. for each output; float32, shape (n, h, w).

    The gradient tape records nothing before the last feature maps, which saves memory.

    Args:
        network: model from pixels to probabilities.
        inputs: a tensor for each input of the network.
        classes: class index of each image, shape (n,).
        map_numbers: numbers of the feature maps to weight.
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
