"""One training, start to end: network, fit, predictions. Everything here needs TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.config.schema.metadata import PatientMetadata
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.data.cache import get_cache_folder
from melanoma_lab.data.split import SPLITS, VAL
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.batches import (
    count_steps_per_epoch,
    make_evaluation_batches,
    make_training_batches,
    one_hot,
    select_batch,
)
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.augmentation import augment, build_augmentation_layers
from melanoma_lab.models.finetuning import extract_head, find_backbone
from melanoma_lab.models.losses import build_loss
from melanoma_lab.models.metadata_branch import add_metadata_branch, add_metadata_encoding
from melanoma_lab.models.optimizers import build_optimizer
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.models.schedules import ScheduleContext, ScheduledLearningRate, build_schedule
from melanoma_lab.models.test_time_augmentation import add_test_time_augmentation
from melanoma_lab.training import distribution
from melanoma_lab.training.backend import count_threads_in_use
from melanoma_lab.training.callbacks import EpochListener, StepListener
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.environment import describe_environment
from melanoma_lab.training.feature_cache import (
    CachedFeatures,
    is_cacheable,
    load_or_compute_features,
)
from melanoma_lab.training.finetuning_stages import (
    StagePlan,
    check_finetuning,
    make_model_factory,
    plan_stages,
)
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.gradient_registry import free_registered_gradients
from melanoma_lab.training.train_steps import Stage
from melanoma_lab.training.training_result import MAX_SAMPLES, TrainingResult

#: Steps of a head on kept features that go at once; more save nothing more.
MOST_AT_ONCE = 32


@dataclass(frozen=True)
class TrainingSetup:
    """What a training is made of.

    Attributes:
        network: from raw pixels, perhaps with encoded metadata, to probabilities; with fresh
            weights.
        augmentation: layers that change a batch before each training step.
        loss: what is lowered.
        optimizers: of each phase, fresh, with the schedule of its learning rate.
        features: of the images that are needed, where a frozen backbone's are kept; None where it
            computes them.
    """

    network: keras.Model
    augmentation: list[keras.Layer]
    loss: keras.losses.Loss
    optimizers: list[tuple[StagePlan, keras.Optimizer, ScheduledLearningRate]]
    features: CachedFeatures | None = None


def build_training_setup(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    *,
    splits: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> TrainingSetup:
    """Build what the configuration names; ``start_backend`` has been called.

    Args:
        config: the whole configuration.
        data: the split dataset.
        images: what balancing made of its training split.
        splits: those whose images the trained network will be applied to, train and val among
            them; None: all.
        progress: called with (done, total) while a frozen backbone's features are computed.

    Raises:
        UserError: it cannot be built as configured.
        RunError: the cache cannot be written.
    """
    regulariser = Regulariser(config.regularisation, seed=config.seed)
    with distribution.scope(config.training):
        network = build_network(
            config.architecture,
            image_size=config.dataset.image_size,
            n_classes=len(data.classes),
            regulariser=regulariser,
        )
        if isinstance(config.metadata, PatientMetadata) and data.patients is not None:
            network = add_metadata_branch(
                network,
                data.patients.encoding.width,
                width=config.metadata.width,
                regulariser=regulariser,
            )
        augmentation = build_augmentation_layers(config.augmentation, seed=config.seed)
        amounts = config.regularisation.strengths()
        loss = build_loss(
            config.loss, data.training_split(), label_smoothing=amounts.label_smoothing
        )
        check_finetuning(network, config.finetuning)
        optimizers = []
        for phase in plan_stages(config):
            course = ScheduleContext(
                learning_rate=phase.learning_rate,
                rate_key=phase.rate_key,
                steps_per_epoch=count_epoch_steps(config, data, images),
                epochs=len(phase.epochs),
                monitor=config.training.monitor,
                first_epoch=phase.epochs.start,
            )
            schedule = build_schedule(config.schedule, course)
            optimizer = build_optimizer(
                config.optimizer,
                network,
                learning_rate=schedule.learning_rate,
                weight_decay=amounts.weight_decay,
            )
            optimizers.append((phase, optimizer, schedule))
    features = None
    if is_cacheable(config, images):
        features = load_or_compute_features(
            find_backbone(network, config.finetuning),
            data,
            splits=splits,
            cache=get_cache_folder(config.cache),
            circumstances=describe_environment(count_threads_in_use(), devices=1),
            progress=progress,
        )
    return TrainingSetup(network, augmentation, loss, optimizers, features)


def count_epoch_steps(config: Config, data: PreparedData, images: BalancedSet) -> int:
    """Optimizer steps in one epoch of a configured training."""
    return count_steps_per_epoch(
        config.training.epoch,
        n_split=len(data.training_split()),
        n_balanced=len(images),
        batch_size=config.training.batch_size,
    )


def choose_steps_per_execution(steps_per_epoch: int) -> int:
    """How many steps of a head on kept features go at once: as many as divide an epoch evenly."""
    return max(n for n in range(1, MOST_AT_ONCE + 1) if steps_per_epoch % n == 0)


@free_registered_gradients()
def train_network(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: TrainingSetup,
    *,
    on_step: StepListener,
    on_epoch: EpochListener,
    on_fitted: Callable[[], None] = lambda: None,
    start: Checkpoint | None = None,
    checkpoints: CheckpointManager | None = None,
    splits: Sequence[str] | None = None,
) -> TrainingResult:
    """Fit a network and apply it.

    Args:
        config: the whole configuration.
        data: the split dataset.
        images: what balancing made of its training split.
        parts: what ``build_training_setup`` built for them.
        on_step: told a few times a second how far an epoch has come.
        on_epoch: told every epoch's figures.
        on_fitted: told when the fit is over, and the network is going to be applied.
        start: the checkpoint to go on from; None: from the start.
        checkpoints: where the state after every epoch is kept; None: nowhere.
        splits: those whose images the trained network is applied to; None: all.

    Raises:
        RunError: the machine has not enough memory.
    """
    options = config.training
    steps = count_epoch_steps(config, data, images)
    features = parts.features

    def stage(
        phase: StagePlan, optimizer: keras.Optimizer, schedule: ScheduledLearningRate
    ) -> Stage:
        computed = features if phase.head_only else None
        return Stage(
            phase.epochs,
            make_model_factory(
                phase,
                parts.network,
                parts.augmentation,
                config.finetuning,
                computed=computed is not None,
            ),
            lambda first: make_training_batches(
                images if computed is None else computed.of(images),
                batch_size=options.batch_size,
                seed=config.seed,
                first_step=first * steps,
                last_step=min(phase.epochs.stop, options.last_epoch) * steps,
            ),
            _as_photographed(data, data.select_split(VAL), options.batch_size, computed),
            optimizer,
            schedule,
            # A plateau's warm-up sets the rate before every step, from Python.
            at_once=1
            if computed is None or schedule.callbacks
            else choose_steps_per_execution(steps),
        )

    fit = fit_network(
        parts.network,
        [stage(*phase) for phase in parts.optimizers],
        options=options,
        steps_per_epoch=steps,
        loss=parts.loss,
        on_step=on_step,
        on_epoch=on_epoch,
        start=start,
        checkpoints=checkpoints,
    )
    on_fitted()
    network = distribution.rebuild_on_one_device(parts.network)
    # Of a backbone that was frozen throughout, the features are what they were.
    begun = [phase for phase, *_ in parts.optimizers if phase.epochs.start < options.last_epoch]
    tta = config.evaluation.tta
    as_they_were = tta is Tta.none and all(phase.head_only for phase in begun)
    frozen = features if as_they_were else None
    looking = add_test_time_augmentation(network, tta) if frozen is None else extract_head(network)
    # Each split in batches of its own: its bits do not depend on which others are measured.
    positions = [data.select_split(split) for split in splits or SPLITS]
    parts_of = [_as_photographed(data, some, options.batch_size, frozen) for some in positions]
    measured = reduce(lambda before, part: before.concatenate(part), parts_of)
    probabilities = looking.predict(measured, verbose=0)[np.argsort(np.concatenate(positions))]
    if not (fit.best_epoch and np.isfinite(probabilities).all()):
        probabilities = None
    sample_images, sample_labels = _samples(images, parts.augmentation, config)
    kept, encoding = add_test_time_augmentation(network, tta), None
    if data.patients is not None:
        encoding = data.patients.encoding
        kept = add_metadata_encoding(kept, encoding)
    return TrainingResult(
        fit=fit,
        parameters=network.count_params(),
        probabilities=probabilities,
        network=kept,
        encoding=encoding,
        sample_images=sample_images,
        sample_labels=sample_labels,
    )


def _as_photographed(
    data: PreparedData,
    positions: NDArray[np.int64],
    batch_size: int,
    features: CachedFeatures | None,
) -> Any:
    """Some images without any change, or what a frozen backbone makes of them."""
    rows = data.rows[positions]
    return make_evaluation_batches(
        data.pixels if features is None else features.values,
        rows if features is None else features.rows(rows),
        data.labels[positions],
        n_classes=len(data.classes),
        batch_size=batch_size,
        metadata=None if data.patients is None else data.patients.numbers[positions],
    )


def _samples(
    images: BalancedSet, augmentation: list[keras.Layer], config: Config
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first images that the fit drew, augmented once more."""
    positions = select_batch(0, n=len(images), batch_size=MAX_SAMPLES, seed=config.seed)
    pixels, labels = images.gather(positions)
    weights = np.ones(len(labels), np.float32)  # so that labels are shares of the picture
    batch = (pixels, one_hot(labels, images.n_classes), weights)
    shown, shares, _ = (keras.ops.convert_to_numpy(x) for x in augment(augmentation, batch))
    return shown, shares
