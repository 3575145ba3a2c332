"""Losses. A builder takes (options, split, label_smoothing) and returns a Keras loss.

A loss compares labels, shape (b, K), one-hot or soft (mixed, smoothed; a row sums to 1), with the
network's probabilities, shape (b, K), and takes one weight for each image, shape (b,).

Logits are not needed. The softmax computes in float32 under every precision and keeps seven digits
of a probability down to ``SMALLEST``. The logarithm of a probability is therefore as exact as the
logit, until a class lies 87 below the highest one; there the loss stays at 87. Keras's own losses
clip probabilities at 1e-7 instead, so that the hardest images, which focal loss is meant for, would
have no gradient.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import CrossEntropy, Focal, LogitAdjusted, Loss
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit
from melanoma_lab.registry import builder, find_builder

#: The smallest normal number of float32, 1.2e-38.
SMALLEST = float(np.finfo(np.float32).tiny)


def build_loss(loss: Loss, split: TrainingSplit, *, label_smoothing: float) -> keras.losses.Loss:
    """Build the configured loss.

    Args:
        split: training images before balancing, from which class frequencies are computed.
        label_smoothing: share of every label that is spread evenly over all classes.

    Raises:
        UserError: the loss cannot be computed for these images.
    """
    return find_builder("loss", loss.name)(loss, split, label_smoothing)


@builder("loss", "cross_entropy")
def cross_entropy(
    _loss: CrossEntropy, _split: TrainingSplit, label_smoothing: float
) -> keras.losses.Loss:
    """Build Keras's cross-entropy, which finds the logits before the softmax by itself."""
    return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)


@builder("loss", "focal")
def focal(loss: Focal, _split: TrainingSplit, label_smoothing: float) -> keras.losses.Loss:
    """Build the focal loss."""
    return FocalLoss(loss.gamma, label_smoothing)


@builder("loss", "logit_adjusted")
def logit_adjusted(
    loss: LogitAdjusted, split: TrainingSplit, label_smoothing: float
) -> keras.losses.Loss:
    """Build logit-adjusted cross-entropy with the class frequencies before balancing.

    Balancing does not change these frequencies, so that balancing and this loss together correct
    for them twice.
    """
    counts = split.class_counts()
    empty = [name for name, n in zip(split.class_names, counts, strict=True) if not n]
    if empty:
        raise UserError(
            f"loss=logit_adjusted: the training split has no image of {format_list(empty)}, whose "
            "logarithm of frequency would be minus infinity. Leave the class out "
            "(dataset.classes), or give the training split a larger share."
        )
    return LogitAdjustedLoss(counts / counts.sum(), loss.tau, label_smoothing)


class FocalLoss(keras.losses.Loss):
    """Focal loss: ``sum over classes of -y (1 - p)**gamma log p``, Lin et al. (2017), equation 4.

    Their factor alpha is left out; use class weights instead. At gamma 0 it is cross-entropy.

    Args:
        gamma: exponent that reduces the weight of confident predictions, at least 0.
    """

    def __init__(self, gamma: float, label_smoothing: float = 0.0) -> None:
        super().__init__(name="focal")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute losses, shape (b,), from labels and probabilities, shape (b, K)."""
        y_true = smooth_labels(y_true, self.label_smoothing)
        # Not 0, where the gradient of a power with an exponent below 1 is infinite.
        complement = keras.ops.maximum(1 - y_pred, keras.config.epsilon())
        terms = y_true * keras.ops.power(complement, self.gamma) * _log_probability(y_pred)
        return -keras.ops.sum(terms, axis=-1)


class LogitAdjustedLoss(keras.losses.Loss):
    """Cross-entropy of ``logit + tau log(prior)``, Menon et al. (2021), equation 10.

    ``log p`` equals the logit up to a constant, which the softmax removes again. The network's own
    output, without the adjustment, is a probability under equal class frequencies: good for
    balanced accuracy, but miscalibrated by as much as the frequencies differ.

    Args:
        prior: float, shape (K,): share of each class, above 0.
        tau: strength of the adjustment; 0 is cross-entropy.
    """

    def __init__(
        self, prior: NDArray[np.float64], tau: float, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(name="logit_adjusted")
        self.adjustment = (tau * np.log(prior)).astype(np.float32)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute losses, shape (b,), from labels and probabilities, shape (b, K)."""
        return keras.losses.categorical_crossentropy(
            y_true,
            _log_probability(y_pred) + self.adjustment,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )


def smooth_labels(y_true: Any, share: float) -> Any:
    """Spread a share of every label, shape (b, K), evenly over all K classes.

    See Szegedy et al. (2016), section 7.
    """
    return y_true * (1 - share) + share / y_true.shape[-1]


def _log_probability(y_pred: Any) -> Any:
    return keras.ops.log(keras.ops.maximum(y_pred, SMALLEST))
