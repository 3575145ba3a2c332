"""What trains when, at which rate: from the configuration to the stages of a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.finetuning import Finetuning, Frozen, FrozenStart, Staged
from melanoma_lab.models.finetuning import (
    check_block,
    extract_head,
    find_backbone,
    freeze,
    unfreeze,
)
from melanoma_lab.models.schedules import RATE_KEY
from melanoma_lab.training.augmented_network import AugmentedNetwork
from melanoma_lab.training.train_steps import FrozenBackbone


@dataclass(frozen=True)
class StagePlan:
    """Epochs in which the same trains.

    Attributes:
        epochs: their numbers, from 0.
        learning_rate: the highest, of everything that trains.
        head_only: whether the backbone is frozen.
        rate_key: the key of the configuration that says the learning rate.
    """

    epochs: range
    learning_rate: float
    head_only: bool
    rate_key: str = RATE_KEY


def plan_stages(config: Config) -> list[StagePlan]:
    """The phases of a configured training, in their order."""
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
    """Refuse what a network has no place for.

    Raises:
        UserError: it has no backbone, or none of which that block would train.
    """
    if isinstance(finetuning, FrozenStart):
        backbone = find_backbone(network, finetuning)
        if isinstance(finetuning, Staged):
            check_block(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)


def make_model_factory(
    phase: StagePlan,
    network: keras.Model,
    augmentation: list[keras.Layer],
    finetuning: Finetuning,
    *,
    computed: bool,
) -> Callable[[], keras.Model]:
    """What makes the model that is fitted in a phase, and freezes what does not train in it.

    Args:
        phase: one of ``plan_stages``.
        network: from pixels to probabilities.
        augmentation: layers that change a batch before each training step.
        finetuning: its configuration.
        computed: whether batches of a phase of the head hold features already.
    """

    def everything() -> keras.Model:
        if isinstance(finetuning, Staged):
            backbone = find_backbone(network, finetuning)
            unfreeze(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)
        return AugmentedNetwork(network, augmentation)

    def head() -> keras.Model:
        backbone = find_backbone(network, finetuning)
        freeze(backbone)
        return FrozenBackbone(extract_head(network), backbone, augmentation, computed=computed)

    return head if phase.head_only else everything
