"""Mixup and CutMix: training images made of two, with labels made of two."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from melanoma_lab.models.augmentation.boxes import build_box_mask
from melanoma_lab.models.augmentation.random_layer import RandomLayer, broadcast_per_image


class MixingLayer(RandomLayer):
    """Mixes every image of a training batch with another one of it, chosen at random.

    A layer of this kind takes and returns (pixels, labels, weights), not pixels alone, and metadata
    after them where there are any; these are mixed in the same shares as the pixels. Each image
    has a lambda of its own, not one a batch: with alpha below one most lambdas are near 0 or 1, and
    a batch that shares one is nearly always either hardly mixed or mixed throughout.

    A subclass says in ``mix`` how pixels are mixed.

    Args:
        alpha: lambda is drawn from Beta(alpha, alpha), alpha > 0.
        seed: of the random numbers.
        name: the layer's.
    """

    def __init__(self, *, alpha: float, seed: int, name: str) -> None:
        super().__init__(seed=seed, name=name)
        self.alpha = alpha

    def change(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Mix a batch.

        Args:
            batch: pixels (b, height, width, 3), labels (b, K), weights (b,) and perhaps metadata
                (b, d), float32.

        Returns:
            The same shapes.
        """
        pixels, labels, weights, *known = batch
        b = ops.shape(pixels)[0]
        other = ops.argsort(self.uniform((b,)))  # a permutation of the batch
        pixels, kept = self.mix(pixels, ops.take(pixels, other, axis=0), self.shares(b))
        share = kept[:, None]
        known = [share * own + (1 - share) * ops.take(own, other, axis=0) for own in known]
        return pixels, *mix_labels(labels, weights, other, kept), *known

    def mix(self, own: Any, other: Any, kept: Any) -> tuple[Any, Any]:
        """Mix images with others.

        Args:
            own: pixels, shape (b, height, width, 3).
            other: pixels of as many others.
            kept: lambda: the share of each image that is its own, shape (b,).

        Returns:
            The mixed pixels, and the shares that came of it, shape (b,).
        """
        raise NotImplementedError

    def shares(self, b: Any) -> Any:
        """Draw lambdas from Beta(alpha, alpha), shape (b,).

        As G / (G + H) with G and H from Gamma(alpha), by their logarithms: with a small alpha both
        underflow in float32, and ``keras.random.beta`` then gives 0/0. log Gamma(alpha) is
        log Gamma(alpha + 1) + log(U) / alpha (Marsaglia and Tsang 2000, section 6).
        """
        gamma = keras.random.gamma((2, b), self.alpha + 1, dtype="float32", seed=self.draws)
        log = ops.log(gamma) + ops.log1p(-self.uniform((2, b))) / self.alpha
        return ops.sigmoid(log[0] - log[1])


def mix_labels(labels: Any, weights: Any, other: Any, kept: Any) -> tuple[Any, Any]:
    """Labels and weights of mixed images.

    An image's weight in the loss becomes lambda w + (1 - lambda) w'. Its label shares are
    lambda w : (1 - lambda) w', so that weight times cross entropy is lambda times what the one
    image would have cost plus (1 - lambda) times what the other would have: class weighting counts
    a class as it does without mixing. With equal weights that is lambda : 1 - lambda.

    Args:
        labels: shape (b, K), rows sum to 1.
        weights: shape (b,), above 0.
        other: position of each image's other one, shape (b,).
        kept: lambda, shape (b,).

    Returns:
        Labels, shape (b, K), rows sum to 1, and weights, shape (b,).
    """
    own_part = kept * weights
    other_part = (1 - kept) * ops.take(weights, other, axis=0)
    weights = own_part + other_part
    own_share = (own_part / weights)[:, None]
    return own_share * labels + (1 - own_share) * ops.take(labels, other, axis=0), weights


class MixUpLayer(MixingLayer):
    """Mixup (Zhang et al. 2018, arXiv:1710.09412): the weighted mean of two images.

    Of lambda and 1 - lambda an image gets the larger. Two images have the same mixtures either way,
    but so each image of a batch is the larger part of one; else, lambdas being drawn for each
    image, some would be there twice and others not at all.
    """

    def __init__(self, *, alpha: float, seed: int, name: str = "mixup") -> None:
        super().__init__(alpha=alpha, seed=seed, name=name)

    def mix(self, own: Any, other: Any, kept: Any) -> tuple[Any, Any]:
        """Every pixel is lambda of the image's own and 1 - lambda of the other's."""
        kept = ops.maximum(kept, 1 - kept)
        share = broadcast_per_image(kept)
        return share * own + (1 - share) * other, kept


class CutMixLayer(MixingLayer):
    """CutMix (Yun et al. 2019, arXiv:1905.04899): a rectangle of an image comes from another."""

    def __init__(self, *, alpha: float, seed: int, name: str = "cutmix") -> None:
        super().__init__(alpha=alpha, seed=seed, name=name)

    def mix(self, own: Any, other: Any, kept: Any) -> tuple[Any, Any]:
        """A box of 1 - lambda of the area, cut off at the edges; the share is what is left."""
        b, height, width, _ = ops.shape(own)
        side = ops.sqrt(1 - kept)
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
