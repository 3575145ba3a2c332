"""One training, start to end: network, fit, predictions. Everything here needs TensorFlow."""

from __future__ import annotations

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
from melanoma_lab.model.augmentation import augmentation_layers
from melanoma_lab.model.optimizers import build_optimizer
from melanoma_lab.model.regularisation import Regulariser
from melanoma_lab.training.callbacks import EpochListener, StepListener
from melanoma_lab.training.checkpoint import Checkpoint, Checkpoints
from melanoma_lab.training.feed import (
    batch_positions,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from melanoma_lab.training.fit import Fit, fit_network

#: Training images kept for the picture of what the network sees.
SAMPLES = 18


@dataclass(frozen=True)
class Parts:
    """What a training is made of.

    Attributes:
        network: from raw pixels to probabilities, with fresh weights.
        augmentation: layers that stand in front of it while it trains.
        optimizer: fresh.
    """

    network: keras.Model
    augmentation: list[keras.Layer]
    optimizer: keras.Optimizer


def assemble(config: Config, n_classes: int) -> Parts:
    """Build what the configuration names; ``start_backend`` has been called.

    Raises:
        UserError: it cannot be built as configured.
    """
    network = build_network(
        config.architecture,
        image_size=config.dataset.image_size,
        n_classes=n_classes,
        regulariser=Regulariser(config.regularisation, seed=config.seed),
    )
    augmentation = augmentation_layers(config.augmentation, seed=config.seed)
    return Parts(network, augmentation, build_optimizer(config.optimizer))


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        network: from raw pixels to probabilities, with the kept epoch's weights.
        fit: what the fit did.
        probabilities: float32, shape (n, n_classes), for every row of the manifest, in inference
            mode; None where they are not finite.
        sample_images: float32, shape (m, H, W, 3), 0 to 255: training images as the network saw
            them, after balancing and augmentation.
        sample_labels: int64, shape (m,).
    """

    network: keras.Model
    fit: Fit
    probabilities: NDArray[np.float32] | None
    sample_images: NDArray[np.float32]
    sample_labels: NDArray[np.int64]


def steps_of(config: Config, data: PreparedData, images: BalancedSet) -> int:
    """Optimizer steps in one epoch of a configured training."""
    return steps_per_epoch(
        config.training.epoch,
        n_split=len(data.training_split()),
        n_balanced=len(images),
        batch_size=config.training.batch_size,
    )


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
) -> Trained:
    """Fit a network and apply it to every image.

    Args:
        config: the whole configuration.
        data: the split dataset.
        images: what balancing made of its training split.
        parts: network, augmentation and optimizer.
        on_step: told a few times a second how far an epoch has come.
        on_epoch: told every epoch's figures.
        start: the checkpoint to go on from; None: from the start.
        checkpoints: where the state after every epoch is kept; None: nowhere.

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
        last_step=options.epochs * steps,
    )
    fit = fit_network(
        parts.network,
        parts.augmentation,
        parts.optimizer,
        train,
        _as_photographed(data, data.of_split(VAL), options.batch_size),
        options=options,
        steps_per_epoch=steps,
        on_step=on_step,
        on_epoch=on_epoch,
        start=start,
        checkpoints=checkpoints,
    )
    everything = _as_photographed(data, np.arange(len(data.manifest)), options.batch_size)
    probabilities = parts.network.predict(everything, verbose=0)
    if not np.isfinite(probabilities).all():
        probabilities = None
    sample_images, sample_labels = _samples(images, parts.augmentation, config)
    return Trained(parts.network, fit, probabilities, sample_images, sample_labels)


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
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first images that the fit drew, put through the augmentation layers once more."""
    positions = batch_positions(0, n=len(images), batch_size=SAMPLES, seed=config.seed)
    pixels, labels = images.gather(positions)
    x: Any = keras.ops.convert_to_tensor(pixels, dtype="float32")
    for layer in augmentation:
        x = layer(x, training=True)
    return keras.ops.convert_to_numpy(x).astype(np.float32), labels
