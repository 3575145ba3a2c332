"""Mixup and CutMix: combine every training image with another one, and their labels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from melanoma_lab.models.augmentation.random_layer import (
    RandomLayer,
    broadcast_per_image,
    build_box_mask,
)


class MixingLayer(RandomLayer):
    """Base class of layers that mix every image of a training batch with another one of it.

    Such a layer takes and returns (pixels, labels, weights) instead of pixels only, followed by
    metadata if there are any. Metadata are mixed in the same shares as pixels. Every image has its
    own lambda. With alpha below 1 most lambdas are near 0 or 1, so that a batch with a single
    lambda would nearly always be either hardly mixed or fully mixed.

    A subclass implements ``mix``.

    Args:
        alpha: parameter of the distribution Beta(alpha, alpha) of lambda, alpha > 0.
        seed: seed of the layer's random numbers.
    """

    def __init__(self, *, alpha: float, seed: int) -> None:
        super().__init__(seed=seed)
        self.alpha = alpha

    def change(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Mix a batch.

        Args:
            batch: pixels (b, height, width, 3), labels (b, K), weights (b,) and perhaps metadata
                (b, d), float32.

        Returns:
            The mixed batch with the same shapes.
        """
        pixels, labels, weights, *metadata = batch
        b = ops.shape(pixels)[0]
        other = ops.argsort(self.uniform((b,)))  # a permutation of the batch
        pixels, lambdas = self.mix(pixels, ops.take(pixels, other, axis=0), self.shares(b))
        share = lambdas[:, None]
        metadata = [share * own + (1 - share) * ops.take(own, other, axis=0) for own in metadata]
        return pixels, *mix_labels(labels, weights, other, lambdas), *metadata

    def mix(self, own: Any, other: Any, lambdas: Any) -> tuple[Any, Any]:
        """Mix the pixels of images with those of others.

        Args:
            own: pixels of the images, shape (b, height, width, 3).
            other: pixels of the other images, same shape.
            lambdas: wanted share (lambda) of each image's own pixels, shape (b,).

        Returns:
            The mixed pixels, and the actual shares of the images' own pixels, shape (b,).
        """
        raise NotImplementedError

    def shares(self, b: Any) -> Any:
        """Draw lambdas from Beta(alpha, alpha), shape (b,).

        Lambda is G / (G + H) with G and H from Gamma(alpha), computed from their logarithms: with a
        small alpha both underflow in float32, and ``keras.random.beta`` then returns 0/0. The
        logarithm of a number from Gamma(alpha) is that of one from Gamma(alpha + 1) plus
        log(U) / alpha, with U uniform in 0 to 1 (Marsaglia and Tsang 2000, section 6).
        """
        gamma = keras.random.gamma((2, b), self.alpha + 1, dtype="float32", seed=self.draws)
        log = ops.log(gamma) + ops.log1p(-self.uniform((2, b))) / self.alpha
        return ops.sigmoid(log[0] - log[1])


def mix_labels(labels: Any, weights: Any, other: Any, lambdas: Any) -> tuple[Any, Any]:
    """Mix the labels and weights of images.

    The weight of a mixed image becomes lambda w + (1 - lambda) w', and its label shares are
    lambda w : (1 - lambda) w'. Its weighted cross-entropy is therefore lambda times that of the
    first label plus (1 - lambda) times that of the second, so that class weights have the same
    effect as without mixing. With equal weights the label shares are lambda : 1 - lambda.

    Args:
        labels: labels, shape (b, K); a row sums to 1.
        weights: weights in the loss, shape (b,), above 0.
        other: position in the batch of the image that each image is mixed with, shape (b,).
        lambdas: share (lambda) of each image's own pixels, shape (b,).

    Returns:
        Labels, shape (b, K), whose rows sum to 1, and weights, shape (b,).
    """
    own_part = lambdas * weights
    other_part = (1 - lambdas) * ops.take(weights, other, axis=0)
    weights = own_part + other_part
    own_share = (own_part / weights)[:, None]
    return own_share * labels + (1 - own_share) * ops.take(labels, other, axis=0), weights


class MixUpLayer(MixingLayer):
    """Mixup layer (Zhang et al. 2018, arXiv:1710.09412): the weighted mean of two images.

    An image's own share is the larger of lambda and 1 - lambda. The possible mixtures of two images
    stay the same, but every image of a batch is the larger part of exactly one mixture. Otherwise,
    since lambda is drawn for each image, some images would be the larger part twice and others
    never.
    """

    NAME = "mixup"

    def mix(self, own: Any, other: Any, lambdas: Any) -> tuple[Any, Any]:
        """Compute lambda times the own pixels plus 1 - lambda times the others."""
        lambdas = ops.maximum(lambdas, 1 - lambdas)
        share = broadcast_per_image(lambdas)
        return share * own + (1 - share) * other, lambdas


class CutMixLayer(MixingLayer):
    """CutMix layer (Yun et al. 2019, arXiv:1905.04899): copy a rectangle from another image."""

    NAME = "cutmix"

    def mix(self, own: Any, other: Any, lambdas: Any) -> tuple[Any, Any]:
        """Copy a box with 1 - lambda of the area; parts beyond the edges are cut off."""
        b, height, width, _ = ops.shape(own)
        side = ops.sqrt(1 - lambdas)
        mask = build_box_mask(
            middle_x=self.uniform((b,)) * width,
            middle_y=self.uniform((b,)) * height,
            box_height=side * height,
            box_width=side * width,
            height=height,
            width=width,
        )
        cut = ops.mean(ops.cast(mask, "float32"), axis=(1, 2, 3))
        return ops.where(mask, other, own), 1 - cut
