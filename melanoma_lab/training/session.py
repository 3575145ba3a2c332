"""One training, start to end: network, fit, predictions. Everything here needs TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.balancing import BalancedSet
from melanoma_lab.config.schema import Config
from melanoma_lab.data.prepare import PreparedData
from melanoma_lab.data.split import VAL
from melanoma_lab.model.architectures import build_network
from melanoma_lab.model.augmentation import augment, augmentation_layers
from melanoma_lab.model.losses import build_loss
from melanoma_lab.model.optimizers import build_optimizer
from melanoma_lab.model.regularisation import Regulariser
from melanoma_lab.model.schedules import Course, Schedule, build_schedule
from melanoma_lab.training import replicas
from melanoma_lab.training.callbacks import EpochListener, StepListener
from melanoma_lab.training.checkpoint import Checkpoint, Checkpoints
from melanoma_lab.training.feed import (
    batch_positions,
    evaluation_batches,
    one_hot,
    steps_per_epoch,
    training_batches,
)
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.registered_gradients import registered_gradients_freed
from melanoma_lab.training.trained import Trained

#: Training images kept for the picture of what the network sees.
SAMPLES = 18


@dataclass(frozen=True)
class Parts:
    """What a training is made of.

    Attributes:
        network: from raw pixels to probabilities, with fresh weights.
        augmentation: layers that change a batch before each training step.
        loss: what is lowered.
        optimizer: fresh.
        schedule: of the optimizer's learning rate.
    """

    network: keras.Model
    augmentation: list[keras.Layer]
    loss: keras.losses.Loss
    optimizer: keras.Optimizer
    schedule: Schedule


def assemble(config: Config, data: PreparedData, images: BalancedSet) -> Parts:
    """Build what the configuration names; ``start_backend`` has been called.

    Args:
        config: the whole configuration.
        data: the split dataset.
        images: what balancing made of its training split.

    Raises:
        UserError: it cannot be built as configured.
    """
    with replicas.scope(config.training):
        network = build_network(
            config.architecture,
            image_size=config.dataset.image_size,
            n_classes=len(data.classes),
            regulariser=Regulariser(config.regularisation, seed=config.seed),
        )
        augmentation = augmentation_layers(config.augmentation, seed=config.seed)
        amounts = config.regularisation.amounts()
        loss = build_loss(
            config.loss, data.training_split(), label_smoothing=amounts.label_smoothing
        )
        course = Course(
            learning_rate=config.optimizer.learning_rate,
            steps_per_epoch=steps_of(config, data, images),
            epochs=config.training.epochs,
            monitor=config.training.monitor,
        )
        schedule = build_schedule(config.schedule, course)
        optimizer = build_optimizer(
            config.optimizer,
            network,
            learning_rate=schedule.learning_rate,
            weight_decay=amounts.weight_decay,
        )
        return Parts(network, augmentation, loss, optimizer, schedule)


def steps_of(config: Config, data: PreparedData, images: BalancedSet) -> int:
    """Optimizer steps in one epoch of a configured training."""
    return steps_per_epoch(
        config.training.epoch,
        n_split=len(data.training_split()),
        n_balanced=len(images),
        batch_size=config.training.batch_size,
    )


@registered_gradients_freed()
def train_network(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: Parts,
    *,
    on_step: StepListener,
    on_epoch: EpochListener,
    start: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
    splits: Sequence[str] | None = None,
) -> Trained:
    """Fit a network and apply it.

    Args:
        config: the whole configuration.
        data: the split dataset.
        images: what balancing made of its training split.
        parts: what ``assemble`` built for them.
        on_step: told a few times a second how far an epoch has come.
        on_epoch: told every epoch's figures.
        start: the checkpoint to go on from; None: from the start.
        checkpoints: where the state after every epoch is kept; None: nowhere.
        splits: those whose images the trained network is applied to; None: all.

    Raises:
        RunError: the machine has not enough memory.
    """
    options = config.training
    steps = steps_of(config, data, images)
    train = training_batches(
        images,
        batch_size=options.batch_size,
        seed=config.seed,
        first_step=start.epoch * steps if start is not None else 0,
        last_step=options.last_epoch * steps,
    )
    fit = fit_network(
        parts.network,
        parts.augmentation,
        parts.optimizer,
        train,
        _as_photographed(data, data.of_split(VAL), options.batch_size),
        options=options,
        steps_per_epoch=steps,
        loss=parts.loss,
        schedule=parts.schedule,
        on_step=on_step,
        on_epoch=on_epoch,
        start=start,
        checkpoints=checkpoints,
    )
    measured = _as_photographed(data, data.of_splits(splits), options.batch_size)
    network = replicas.on_one_device(parts.network)
    probabilities = network.predict(measured, verbose=0)
    if not np.isfinite(probabilities).all():
        probabilities = None
    sample_images, sample_labels = _samples(images, parts.augmentation, config)
    return Trained(
        fit=fit,
        parameters=network.count_params(),
        probabilities=probabilities,
        network=network,
        sample_images=sample_images,
        sample_labels=sample_labels,
    )


def _as_photographed(data: PreparedData, positions: NDArray[np.int64], batch_size: int) -> Any:
    return evaluation_batches(
        data.pixels,
        data.rows[positions],
        data.labels[positions],
        n_classes=len(data.classes),
        batch_size=batch_size,
    )


def _samples(
    images: BalancedSet, augmentation: list[keras.Layer], config: Config
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first images that the fit drew, augmented once more."""
    positions = batch_positions(0, n=len(images), batch_size=SAMPLES, seed=config.seed)
    pixels, labels = images.gather(positions)
    weights = np.ones(len(labels), np.float32)  # so that labels are shares of the picture
    batch = (pixels, one_hot(labels, images.n_classes), weights)
    shown, shares, _ = (keras.ops.convert_to_numpy(x) for x in augment(augmentation, batch))
    return shown, shares
