"""A network that is fitted with augmentation, which only its training step applies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from melanoma_lab.input_pipeline.model_inputs import build_inputs
from melanoma_lab.models.augmentation import augment


class AugmentedNetwork(keras.Model):
    """A network whose training step augments the batch; evaluation and prediction do not change.

    The state of the augmentation's random numbers is among this model's ``variables``. Neither that
    nor an optimizer, loss or metric becomes part of the network.

    Args:
        network: model from pixels, or pixels and metadata, to probabilities.
        augmentation: layers from ``melanoma_lab.models.augmentation``.
    """

    def __init__(self, network: keras.Model, augmentation: Sequence[keras.Layer]) -> None:
        inputs = build_inputs(network)
        super().__init__(inputs, network(inputs), name="training")
        self.augmentation = list(augmentation)

    def train_step(self, data: tuple[Any, Any, Any]) -> dict[str, Any]:
        """Take one optimizer step on an augmented batch.

        Args:
            data: inputs, labels and weights, as ``make_training_batches`` yields them.

        Returns:
            The epoch's running loss and metrics.
        """
        figures: dict[str, Any] = super().train_step(augment(self.augmentation, data))
        return figures
