"""Layers that change every image of a training batch at random: affine, colour, erasing, mixing."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


class RandomLayer(keras.layers.Layer):
    """Layer that changes a batch at random in training, and passes it through otherwise.

    Its random numbers come from one ``SeedGenerator``, whose state is a variable of the model with
    the layer: a training that resumes from a checkpoint of the model's ``variables`` draws the same
    numbers, bit for bit. The layer computes in float32 under every precision: half precision would
    round the pixels.

    A subclass implements ``change`` and has a ``NAME``, the name of the layer.
    """

    NAME: str

    def __init__(self, *, seed: int) -> None:
        super().__init__(name=self.NAME, dtype="float32")
        self.draws = keras.random.SeedGenerator(seed)

    def call(self, batch: Any, training: bool = False) -> Any:
        """Return the batch, changed if in training."""
        return self.change(batch) if training else batch

    def change(self, batch: Any) -> Any:
        """Return a changed training batch."""
        raise NotImplementedError

    def uniform(self, shape: tuple[Any, ...], low: float = 0.0, high: float = 1.0) -> Any:
        """Draw random numbers u, float32, low <= u < high."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.draws)


def broadcast_per_image(values: Any) -> Any:
    """Reshape (b,) to (b, 1, 1, 1), to be broadcast over a batch of images."""
    return keras.ops.reshape(values, (-1, 1, 1, 1))


def build_box_mask(
    *, middle_x: Any, middle_y: Any, box_height: Any, box_width: Any, height: int, width: int
) -> Any:
    """Build a mask of one box for each image; parts of a box outside its image are cut off.

    Args:
        middle_x: centres of the boxes, in pixels from the left edge, shape (b,).
        middle_y: centres of the boxes, in pixels from the upper edge, shape (b,).
        box_height: heights of the boxes in pixels, shape (b,).
        box_width: widths of the boxes in pixels, shape (b,).

    Returns:
        bool, shape (b, height, width, 1): True for pixels whose centre lies in the box.
    """
    rows = ops.arange(height, dtype="float32") + 0.5
    columns = ops.arange(width, dtype="float32") + 0.5
    tall = ops.abs(rows - middle_y[:, None]) < box_height[:, None] / 2
    wide = ops.abs(columns - middle_x[:, None]) < box_width[:, None] / 2
    return ops.logical_and(tall[:, :, None, None], wide[:, None, :, None])


class RandomAffine(RandomLayer):
    """Layer that flips, rotates and crops every image of a batch with its own random values.

    Separate layers would interpolate, and therefore blur, two or three times. Beyond its edges an
    image is continued by its mirror image: a network could learn from corners filled with a colour.

    Args:
        flip: whether to mirror images left to right and, independently, top to bottom, each with
            probability 0.5.
        rotation: largest angle in degrees, in both directions; 180 allows every angle.
        crop: smallest share of an image's area that is kept, 0 < crop <= 1. The share and the
            position are uniform, and the kept part is enlarged to the size of the image.
    """

    NAME = "affine"

    def __init__(self, *, flip: bool, rotation: float, crop: float, seed: int) -> None:
        super().__init__(seed=seed)
        self.flip, self.rotation, self.crop = flip, rotation, crop

    def change(self, batch: Any) -> Any:
        """Augment pixels, shape (b, height, width, 3)."""
        b, height, width, _ = ops.shape(batch)
        limit = math.radians(self.rotation)
        angle = self.uniform((b,), -limit, limit)
        scale = ops.sqrt(self.uniform((b,), self.crop, 1.0))
        signs = ops.ones((2, b))
        if self.flip:
            signs = ops.where(self.uniform((2, b)) < 0.5, -1.0, 1.0)
        shifts = self.uniform((2, b), -1.0, 1.0) * (1 - scale)
        transform = build_affine_transform(
            linear=build_linear_part(angle, scale, signs), shifts=shifts, height=height, width=width
        )
        return apply_affine(batch, transform)


def apply_affine(pixels: Any, transform: Any) -> Any:
    """Apply affine transforms to a batch; bilinear, with mirror images beyond the edges."""
    return ops.image.affine_transform(
        pixels, transform, interpolation="bilinear", fill_mode="reflect"
    )


def build_linear_part(angle: Any, scale: Any, signs: Any) -> Any:
    """Build the linear part of a flip, a rotation and an enlargement.

    Args:
        angle: angles in radians, shape (b,).
        scale: shares of the height and width that are kept, shape (b,).
        signs: -1 to mirror, 1 otherwise, shape (2, b): left to right, and top to bottom.

    Returns:
        The four entries of the matrices from output to input coordinates, row by row, shape (4, b).
    """
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    return ops.stack([cosine * signs[0], -sine * signs[1], sine * signs[0], cosine * signs[1]])


def build_affine_transform(*, linear: Any, shifts: Any, height: Any, width: Any) -> Any:
    """Build the affine transforms from output to input coordinates.

    Args:
        linear: matrices from output to input coordinates, relative to the centre of the image, row
            by row, shape (4, b).
        shifts: shifts of the centre to the right and down, shape (2, b). The unit is half the
            distance from the first pixel to the last.

    Returns:
        float32, shape (b, 8): a0 a1 a2 b0 b1 b2 0 0, as ``keras.ops.image.affine_transform`` takes
        them. The output pixel at (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    middle_x = (ops.cast(width, "float32") - 1) / 2
    middle_y = (ops.cast(height, "float32") - 1) / 2
    a0, a1, b0, b1 = (linear[k] for k in range(4))
    a2 = middle_x * (1 + shifts[0]) - a0 * middle_x - a1 * middle_y
    b2 = middle_y * (1 + shifts[1]) - b0 * middle_x - b1 * middle_y
    zero = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


#: Weights of red, green and blue in luminance (ITU-R BT.601, as in Pillow's mode L).
LUMINANCE: NDArray[np.float32] = np.array([0.299, 0.587, 0.114], np.float32)
#: From RGB to NTSC's YIQ: luminance, and a plane of colours in which hue is the angle.
_YIQ = np.array([LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(LUMINANCE, (3, 1))
_QUARTER_TURN = (np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ).astype(
    np.float32
)


class RandomColour(RandomLayer):
    """Layer that changes the colours of every image of a batch with its own random values.

    Brightness, contrast and saturation are defined as in torchvision's ColorJitter and Pillow's
    ImageEnhance. Hue is rotated in YIQ, where the rotation is linear, not in HSV. Therefore one
    matrix and one offset for each image do all four, and values are clipped to 0..255 once at the
    end instead of after each change. Keras's layers need one pass over the batch for each change,
    half of them through HSV; its RandomSaturation leaves the range 0..255, and its
    RandomColorJitter computes in half precision if the network does.

    Args:
        brightness: factors are uniform in 1 - brightness to 1 + brightness; 0 to 1.
        contrast: the same for the distance from the image's mean luminance.
        saturation: the same for the distance from each pixel's own luminance.
        hue: largest rotation in both directions, as a share of a full turn; 0 to 0.5.
    """

    NAME = "colour"

    def __init__(
        self, *, brightness: float, contrast: float, saturation: float, hue: float, seed: int
    ) -> None:
        super().__init__(seed=seed)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def change(self, batch: Any) -> Any:
        """Augment pixels, values 0 to 255, shape (b, height, width, 3)."""
        b = ops.shape(batch)[0]
        turn = self.uniform((b,), -self.hue, self.hue) * (2 * math.pi)
        return recolour(
            batch,
            brightness=1 + self.uniform((b,), -self.brightness, self.brightness),
            contrast=1 + self.uniform((b,), -self.contrast, self.contrast),
            saturation=1 + self.uniform((b,), -self.saturation, self.saturation),
            turn=turn,
        )


def recolour(pixels: Any, *, brightness: Any, contrast: Any, saturation: Any, turn: Any) -> Any:
    """Change the colours of every image: hue, saturation, brightness, then contrast.

    Args:
        pixels: float32, values 0 to 255, shape (b, height, width, 3).
        brightness: factors, shape (b,).
        contrast: factors, shape (b,).
        saturation: factors, shape (b,).
        turn: rotations of the hue in radians, shape (b,).

    Returns:
        Pixels of the same shape, clipped to 0 to 255.
    """
    x, y, s = (ops.reshape(v, (-1, 1, 1)) for v in (ops.cos(turn), ops.sin(turn), saturation))
    # Hue and saturation do not change luminance, so that its mean is that of the input.
    matrix = _GREY + s * x * (np.eye(3, dtype=np.float32) - _GREY) + s * y * _QUARTER_TURN
    matrix = ops.reshape(brightness * contrast, (-1, 1, 1)) * matrix
    grey = ops.sum(ops.mean(pixels, axis=(1, 2)) * LUMINANCE, axis=1)
    offset = broadcast_per_image((1 - contrast) * brightness * grey)
    _, height, width, _ = ops.shape(pixels)
    flat = ops.reshape(pixels, (-1, height * width, 3))
    mixed = ops.reshape(ops.matmul(flat, ops.transpose(matrix, (0, 2, 1))), (-1, height, width, 3))
    return ops.clip(mixed + offset, 0, 255)


class RandomErasing(RandomLayer):
    """Layer that fills a rectangle in some images with the image's own mean colour.

    That hides a part of the image and adds nothing that a network could learn from. (Keras's layer
    of the same name fills it with noise, half of which is black.)

    Args:
        share: share of images that lose a rectangle, 0 to 1.
        area: smallest and largest share of the image's area; uniform between them.
    """

    NAME = "erase"
    #: Largest ratio of the longer side of a rectangle to the shorter one.
    ASPECT = 3.3

    def __init__(self, *, share: float, area: tuple[float, float], seed: int) -> None:
        super().__init__(seed=seed)
        self.share, self.area = share, area

    def change(self, batch: Any) -> Any:
        """Augment pixels, shape (b, height, width, 3)."""
        b, height, width, _ = ops.shape(batch)
        area = self.uniform((b,), *self.area) * height * width
        limit = math.log(self.ASPECT)
        aspect = ops.exp(self.uniform((b,), -limit, limit))
        box_height = ops.minimum(ops.sqrt(area * aspect), height)
        box_width = ops.minimum(ops.sqrt(area / aspect), width)
        # Inside the image, so that its area is the drawn one.
        mask = build_box_mask(
            middle_x=box_width / 2 + self.uniform((b,)) * (width - box_width),
            middle_y=box_height / 2 + self.uniform((b,)) * (height - box_height),
            box_height=box_height,
            box_width=box_width,
            height=height,
            width=width,
        )
        erased = ops.logical_and(mask, broadcast_per_image(self.uniform((b,)) < self.share))
        return ops.where(erased, ops.mean(batch, axis=(1, 2), keepdims=True), batch)


class MixingLayer(RandomLayer):
    """Base class of layers that mix every image of a training batch with another one of it.

    Such a layer takes and returns (pixels, labels, weights) instead of pixels only, followed by
    metadata if there are any. Metadata are mixed in the same shares as pixels. Every image has its
    own lambda. With alpha below 1 most lambdas are near 0 or 1, so that a batch with a single
    lambda would nearly always be either hardly mixed or fully mixed.

    A subclass implements ``mix``.

    Args:
        alpha: parameter of the distribution Beta(alpha, alpha) of lambda, alpha > 0.
    """

    def __init__(self, *, alpha: float, seed: int) -> None:
        super().__init__(seed=seed)
        self.alpha = alpha

    def change(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Mix a batch.

        Args:
            batch: pixels (b, height, width, 3), labels (b, K), weights (b,) and perhaps metadata
                (b, d), float32.
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
