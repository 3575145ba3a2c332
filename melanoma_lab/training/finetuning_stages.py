"""Plan the stages of a fit: what trains in which epochs, and at which learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.training import Finetuning, Frozen, FrozenStart, Staged
from melanoma_lab.models.finetuning import (
    check_block,
    extract_head,
    find_backbone,
    freeze,
    unfreeze,
)
from melanoma_lab.models.schedules import RATE_KEY
from melanoma_lab.training.train_steps import AugmentedNetwork, FrozenBackbone


@dataclass(frozen=True)
class StagePlan:
    """Consecutive epochs in which the same part of a network trains.

    Attributes:
        epochs: numbers of the epochs, from 0.
        learning_rate: highest learning rate of the stage, the same for all weights that train.
        head_only: whether the backbone is frozen.
        rate_key: configuration key of the learning rate.
    """

    epochs: range
    learning_rate: float
    head_only: bool
    rate_key: str = RATE_KEY


def plan_stages(config: Config) -> list[StagePlan]:
    """Return the stages of a configured training, in order."""
    finetuning, epochs = config.finetuning, config.training.epochs
    rate = config.optimizer.learning_rate
    if isinstance(finetuning, Staged):
        first = finetuning.head_epochs
        return [
            StagePlan(range(first), rate, head_only=True),
            StagePlan(
                range(first, epochs),
                finetuning.learning_rate,
                head_only=False,
                rate_key="finetuning.learning_rate",
            ),
        ]
    return [StagePlan(range(epochs), rate, head_only=isinstance(finetuning, Frozen))]


def check_finetuning(network: keras.Model, finetuning: Finetuning) -> None:
    """Refuse a fine-tuning that a network does not support.

    Args:
        network: model from pixels, perhaps with metadata, to probabilities.
        finetuning: configured fine-tuning.

    Raises:
        UserError: the network has no backbone, or the block to unfreeze from has nothing to train.
    """
    if isinstance(finetuning, FrozenStart):
        backbone = find_backbone(network, finetuning)
        if isinstance(finetuning, Staged):
            check_block(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)


def make_model_factory(
    plan: StagePlan,
    network: keras.Model,
    augmentation: list[keras.Layer],
    finetuning: Finetuning,
    *,
    precomputed: bool,
) -> Callable[[], keras.Model]:
    """Return a function that builds the model of one stage and freezes the rest.

    Args:
        plan: one of the stages from ``plan_stages``.
        network: model from pixels, perhaps with metadata, to probabilities.
        augmentation: layers that augment a batch in each training step.
        finetuning: configured fine-tuning.
        precomputed: whether the batches of a stage with a frozen backbone hold features instead of
            pixels.
    """

    def build_network() -> keras.Model:
        if isinstance(finetuning, Staged):
            backbone = find_backbone(network, finetuning)
            unfreeze(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)
        return AugmentedNetwork(network, augmentation)

    def build_head() -> keras.Model:
        backbone = find_backbone(network, finetuning)
        freeze(backbone)
        return FrozenBackbone(
            extract_head(network), backbone, augmentation, precomputed=precomputed
        )

    return build_head if plan.head_only else build_network
