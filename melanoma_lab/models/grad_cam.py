"""Grad-CAM: where in an image a network finds what speaks for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The last maps of features are added up, each weighted by the mean
gradient of the class's score in it, and what is below zero is cut off. For a network of maps,
global average pooling and one dense layer this is the class activation map of Zhou et al., CVPR
2016, but for a factor.

* **Scores are those before the softmax**, as in the paper. The probability's own gradient
  vanishes where the network is sure, so that maps of the most confident answers would be noise or
  nothing; and it mixes in what speaks against the others. They are computed from
  the last layer's numbers; to take its softmax away would change the network.
* **Maps are those last laid out as an image**, after their normalisation, activation and residual
  sum, but before any pooling behind them. (The bare output of the last convolution is what most
  programs take; behind it the signs may be turned yet.)
* **Several views** of an image are not averaged: the map is that of the image as it is. **Members
  of an ensemble** are: each map is scaled first, so that each counts the same.

The map is as coarse as the maps are (a 7th of the side, say) and says nothing about whether the
answer is right, nor that the network would answer otherwise without that part of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma_lab.models.feature_maps import FeatureMaps, trace_feature_maps

#: Pixels of images that are looked at together, but eight images at least: while they are, all that
#: the network makes of them is kept.
AT_ONCE = 400_000
#: Dimensions of what is laid out as an image, in batches.
IMAGE = 4


def compute_grad_cam(
    network: keras.Model,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.intp],
    known: Sequence[NDArray[np.generic]] = (),
) -> NDArray[np.float32]:
    """Where in images a network finds what speaks for a class of each.

    Args:
        network: from pixels to probabilities, as every architecture of the lab is, bare, with
            views, with metadata, or an ensemble; one of a user's own if it has a convolution and
            ends in a softmax. It is not changed.
        pixels: uint8, shape (n, s, s, 3), 0 to 255.
        classes: intp, shape (n,), from 0 to K - 1.
        known: what else the network takes, such as metadata, in the order of its inputs; each of
            shape (n, d).

    Returns:
        float32, shape (n, s, s), of each image from 0 to 1; 0 all over where nothing in it speaks
        for its class.

    Raises:
        UserError: the network has no convolution, or no softmax at its end.
    """
    return GradCam(network)(pixels, classes, known)


class GradCam:
    """``compute_grad_cam`` of one network, for many images: where its maps are is found once.

    Attributes:
        places: rows and columns of the maps that are weighted; of several, of the finest.

    Raises:
        UserError: as ``compute_grad_cam``.
    """

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._images = [len(tensor.shape) == IMAGE for tensor in network.inputs]
        maps = [
            answer.maps for answer in trace_feature_maps(network, _nothing(network)) if answer.maps
        ]
        self._last = {one.number for one in maps}
        shapes = [one.values.shape[1:3] for one in maps]
        self.places: tuple[int, int] = max((int(rows), int(columns)) for rows, columns in shapes)

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        classes: NDArray[np.intp],
        known: Sequence[NDArray[np.generic]] = (),
    ) -> NDArray[np.float32]:
        """As ``compute_grad_cam``."""
        if len(known) != len(self._images) - 1:
            raise ValueError(
                f"Expected {len(self._images) - 1} inputs beside pixels. Received {len(known)}."
            )
        found = np.zeros(pixels.shape[:3], np.float32)
        n = max(8, AT_ONCE // max(1, pixels.shape[1] * pixels.shape[2]))
        for start in range(0, len(pixels), n):
            part = slice(start, start + n)
            others = iter(known)
            inputs = [
                tf.cast(pixels[part] if is_image else next(others)[part], tensor.dtype)
                for is_image, tensor in zip(self._images, self._network.inputs, strict=True)
            ]
            for coarse in _weighted(self._network, inputs, classes[part], self._last):
                fine = tf.image.resize(coarse[..., None], found.shape[1:], "bilinear")
                found[part] += _to_one(fine[..., 0].numpy())
        return _to_one(found)


def _nothing(network: keras.Model) -> list[Any]:
    """One black image, and zeros for what else a network takes."""
    return [tf.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in network.inputs]


def _weighted(
    network: keras.Model, inputs: Sequence[Any], classes: NDArray[np.intp], last: set[int]
) -> list[Any]:
    """Equations 1 and 2 of Selvaraju et al., for each answer; float32, shape (n, h, w).

    What comes before the last maps is not recorded, and so nothing of it is kept in memory.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watch(maps: FeatureMaps) -> None:
            if maps.number in last:
                tape.watch(maps.values)

        answers = trace_feature_maps(network, inputs, watch)
        # Neither images nor members influence each other: one gradient serves them all.
        chosen = [tf.gather(answer.scores, classes, axis=1, batch_dims=1) for answer in answers]
        total = tf.add_n([tf.reduce_sum(scores) for scores in chosen])
    maps = [answer.maps.values for answer in answers if answer.maps]
    weighted = []
    for values, gradient in zip(maps, tape.gradient(total, maps), strict=True):
        weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=(1, 2), keepdims=True)
        summed = tf.reduce_sum(weights * tf.cast(values, tf.float32), axis=-1)
        weighted.append(tf.nn.relu(summed))
    return weighted


def _to_one(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps with their highest place at 1; those that are 0 stay so."""
    highest = maps.max(axis=(1, 2), keepdims=True, initial=0.0)
    scaled: NDArray[np.float32] = np.divide(
        maps, highest, out=np.zeros_like(maps), where=highest > 0
    )
    return scaled
