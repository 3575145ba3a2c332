"""Losses. A builder takes (options, split, label_smoothing) and returns a Keras loss.

A loss compares labels, shape (b, K), one-hot or soft (mixed, smoothed; a row sums to 1), with the
network's probabilities, shape (b, K), and takes one weight an image, shape (b,).

Logits are not needed. Probabilities come out of a softmax in float32 under every precision, which
keeps seven digits of them down to ``SMALLEST``, so their logarithm is as exact as the logit would
be until a class lies 87 below the highest one; there the loss stays at 87. Keras's own losses
of probabilities cut at 1e-7 instead, beyond which an image pulls no more: the hardest, which
focal loss is there for.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.loss import CrossEntropy, Focal, LogitAdjusted, Loss
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.input_pipeline.training_split import TrainingSplit
from melanoma_lab.registry import builder, find_builder

#: The smallest normal number of float32, 1.2e-38.
SMALLEST = float(np.finfo(np.float32).tiny)


def build_loss(loss: Loss, split: TrainingSplit, *, label_smoothing: float) -> keras.losses.Loss:
    """The loss that the configuration names.

    Args:
        loss: the option's configuration.
        split: the training images before balancing; how frequent a class is says this alone.
        label_smoothing: share of every label that is spread evenly over all classes.

    Raises:
        UserError: the loss cannot be had for these images.
    """
    return find_builder("loss", loss.name)(loss, split, label_smoothing)


@builder("loss", "cross_entropy")
def cross_entropy(
    _loss: CrossEntropy, _split: TrainingSplit, label_smoothing: float
) -> keras.losses.Loss:
    """Keras's, which finds the logits behind the softmax by itself."""
    return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)


@builder("loss", "focal")
def focal(loss: Focal, _split: TrainingSplit, label_smoothing: float) -> keras.losses.Loss:
    """Focal loss."""
    return FocalLoss(loss.gamma, label_smoothing)


@builder("loss", "logit_adjusted")
def logit_adjusted(
    loss: LogitAdjusted, split: TrainingSplit, label_smoothing: float
) -> keras.losses.Loss:
    """Logit-adjusted cross-entropy by the class prior of the training images as photographed.

    Balancing does not change that prior: a balanced epoch together with this loss corrects twice.
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
    """``sum over classes of -y (1 - p)**gamma log p``, after Lin et al. (2017), equation 4.

    Without their alpha, which is what class weights are for. At gamma 0 it is cross-entropy.

    Args:
        gamma: how much less an image counts, the surer the network is of it; at least 0.
        label_smoothing: share of every label that is spread evenly over all classes.
    """

    def __init__(self, gamma: float, label_smoothing: float = 0.0) -> None:
        super().__init__(name="focal")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Losses, shape (b,), of labels and probabilities, shape (b, K)."""
        y_true = smooth_labels(y_true, self.label_smoothing)
        # Off 0, where the gradient of a power below 1 is infinite.
        unsure = keras.ops.maximum(1 - y_pred, keras.config.epsilon())
        terms = y_true * keras.ops.power(unsure, self.gamma) * _log_probability(y_pred)
        return -keras.ops.sum(terms, axis=-1)


class LogitAdjustedLoss(keras.losses.Loss):
    """Cross-entropy of ``logit + tau log(prior)``, Menon et al. (2021), equation 10.

    The logits are ``log p`` but for a constant, which the softmax takes away again. What the
    network answers without the adjustment is a probability under equal class frequencies: good
    for balanced accuracy, and by as much miscalibrated where frequencies differ.

    Args:
        prior: shape (K,); share of each class, above 0.
        tau: strength of the adjustment; 0 is cross-entropy.
        label_smoothing: share of every label that is spread evenly over all classes.
    """

    def __init__(
        self, prior: NDArray[np.float64], tau: float, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(name="logit_adjusted")
        self.adjustment = (tau * np.log(prior)).astype(np.float32)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Losses, shape (b,), of labels and probabilities, shape (b, K)."""
        return keras.losses.categorical_crossentropy(
            y_true,
            _log_probability(y_pred) + self.adjustment,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )


def smooth_labels(y_true: Any, share: float) -> Any:
    """Labels, shape (b, K), of which a share is spread evenly over all K classes.

    Szegedy et al. (2016), section 7.
    """
    return y_true * (1 - share) + share / y_true.shape[-1]


def _log_probability(y_pred: Any) -> Any:
    return keras.ops.log(keras.ops.maximum(y_pred, SMALLEST))
