"""Train a network and apply it to the splits. This module needs TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import PatientMetadata
from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.data.split import SPLITS, VAL
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
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
from melanoma_lab.models.extended_networks import (
    add_metadata_branch,
    add_metadata_encoding,
    add_test_time_augmentation,
)
from melanoma_lab.models.losses import build_loss
from melanoma_lab.models.optimizers import (
    ScheduleContext,
    ScheduledLearningRate,
    build_optimizer,
    build_schedule,
)
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.training import distribution
from melanoma_lab.training.callbacks import EpochListener, StepListener
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.environment import describe_environment
from melanoma_lab.training.feature_cache import (
    CachedFeatures,
    is_cacheable,
    load_or_compute_features,
)
from melanoma_lab.training.finetuning import (
    StagePlan,
    check_finetuning,
    extract_head,
    find_backbone,
    make_model_factory,
    plan_stages,
)
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.hardware import count_threads_in_use
from melanoma_lab.training.train_steps import Stage, free_registered_gradients
from melanoma_lab.training.training_result import MAX_SAMPLES, TrainingResult

#: Largest number of steps of a head on cached features in one call; more gave no more speed.
MOST_AT_ONCE = 32


@dataclass(frozen=True)
class TrainingSetup:
    """The network, augmentation, loss and optimizers of a training that has not started.

    Attributes:
        network: model from raw pixels, perhaps with encoded metadata, to probabilities, with its
            initial weights.
        augmentation: layers that augment a batch in each training step.
        loss: loss to minimise.
        optimizers: each stage's plan, new optimizer and schedule of the learning rate.
        features: cached features of the images that are needed; None if the network computes them
            in every epoch or has no frozen backbone.
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
    """Build the configured network, augmentation, loss and optimizers.

    Call ``start_backend`` first.

    Args:
        splits: splits that the trained network will be applied to, which include train and val;
            None: all.

    Raises:
        UserError: the configuration cannot be built.
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
        strengths = config.regularisation.strengths()
        loss = build_loss(
            config.loss, data.training_split(), label_smoothing=strengths.label_smoothing
        )
        check_finetuning(network, config.finetuning)
        optimizers = []
        for plan in plan_stages(config):
            context = ScheduleContext(
                learning_rate=plan.learning_rate,
                rate_key=plan.rate_key,
                steps_per_epoch=count_epoch_steps(config, data, images),
                epochs=len(plan.epochs),
                monitor=config.training.monitor,
                first_epoch=plan.epochs.start,
            )
            schedule = build_schedule(config.schedule, context)
            optimizer = build_optimizer(
                config.optimizer,
                network,
                learning_rate=schedule.learning_rate,
                weight_decay=strengths.weight_decay,
            )
            optimizers.append((plan, optimizer, schedule))
    features = None
    if is_cacheable(config, images):
        features = load_or_compute_features(
            find_backbone(network, config.finetuning),
            data,
            splits=splits,
            cache=get_cache_folder(config.cache),
            environment=describe_environment(count_threads_in_use(), devices=1),
            progress=progress,
        )
    return TrainingSetup(network, augmentation, loss, optimizers, features)


def count_epoch_steps(config: Config, data: PreparedData, images: BalancedSet) -> int:
    """Return the number of optimizer steps in an epoch of a configured training."""
    return count_steps_per_epoch(
        config.training.epoch,
        n_split=len(data.training_split()),
        n_balanced=len(images),
        batch_size=config.training.batch_size,
    )


def choose_steps_per_execution(steps_per_epoch: int) -> int:
    """Return Keras's ``steps_per_execution`` for a head on cached features; it divides an epoch."""
    return max(n for n in range(1, MOST_AT_ONCE + 1) if steps_per_epoch % n == 0)


@free_registered_gradients()
def train_network(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    setup: TrainingSetup,
    *,
    on_step: StepListener,
    on_epoch: EpochListener,
    on_fitted: Callable[[], None] = lambda: None,
    start: Checkpoint | None = None,
    checkpoints: CheckpointManager | None = None,
    splits: Sequence[str] | None = None,
) -> TrainingResult:
    """Fit a network and compute its probabilities for the images of the splits.

    Args:
        setup: result of ``build_training_setup`` for the same configuration and images.
        on_fitted: called after the fit, before the network is applied.
        splits: splits that the trained network is applied to; None: all.

    Raises:
        RunError: the machine does not have enough memory.
    """
    options = config.training
    steps = count_epoch_steps(config, data, images)
    features = setup.features

    def stage(
        plan: StagePlan, optimizer: keras.Optimizer, schedule: ScheduledLearningRate
    ) -> Stage:
        cached = features if plan.head_only else None
        return Stage(
            plan.epochs,
            make_model_factory(
                plan,
                setup.network,
                setup.augmentation,
                config.finetuning,
                precomputed=cached is not None,
            ),
            lambda first: make_training_batches(
                images if cached is None else cached.of(images),
                batch_size=options.batch_size,
                seed=config.seed,
                first_step=first * steps,
                last_step=min(plan.epochs.stop, options.last_epoch) * steps,
            ),
            _make_unaugmented_batches(data, data.select_split(VAL), options.batch_size, cached),
            optimizer,
            schedule,
            # The warm-up of a plateau schedule sets the rate before every step, in Python.
            at_once=1
            if cached is None or schedule.callbacks
            else choose_steps_per_execution(steps),
        )

    fit = fit_network(
        setup.network,
        [stage(*planned) for planned in setup.optimizers],
        options=options,
        steps_per_epoch=steps,
        loss=setup.loss,
        on_step=on_step,
        on_epoch=on_epoch,
        start=start,
        checkpoints=checkpoints,
    )
    on_fitted()
    network = distribution.rebuild_on_one_device(setup.network)
    # If the backbone was frozen in all stages, the cached features are still valid.
    started = [plan for plan, *_ in setup.optimizers if plan.epochs.start < options.last_epoch]
    tta = config.evaluation.tta
    still_valid = tta is Tta.none and all(plan.head_only for plan in started)
    cached = features if still_valid else None
    predictor = (
        add_test_time_augmentation(network, tta) if cached is None else extract_head(network)
    )
    # Each split has its own batches, so that its bits do not depend on the other splits.
    positions = [data.select_split(split) for split in splits or SPLITS]
    batches = [
        _make_unaugmented_batches(data, selected, options.batch_size, cached)
        for selected in positions
    ]
    all_batches = reduce(lambda before, part: before.concatenate(part), batches)
    probabilities = predictor.predict(all_batches, verbose=0)[np.argsort(np.concatenate(positions))]
    if not (fit.best_epoch and np.isfinite(probabilities).all()):
        probabilities = None
    sample_images, sample_labels = _draw_samples(images, setup.augmentation, config)
    final_network, encoding = add_test_time_augmentation(network, tta), None
    if data.patients is not None:
        encoding = data.patients.encoding
        final_network = add_metadata_encoding(final_network, encoding)
    return TrainingResult(
        fit=fit,
        parameters=network.count_params(),
        probabilities=probabilities,
        network=final_network,
        encoding=encoding,
        sample_images=sample_images,
        sample_labels=sample_labels,
    )


def _make_unaugmented_batches(
    data: PreparedData,
    positions: NDArray[np.int64],
    batch_size: int,
    features: CachedFeatures | None,
) -> Any:
    """Return a tf.data dataset of unaugmented images, or of their cached features."""
    rows = data.rows[positions]
    return make_evaluation_batches(
        data.pixels if features is None else features.values,
        rows if features is None else features.rows(rows),
        data.labels[positions],
        n_classes=len(data.classes),
        batch_size=batch_size,
        metadata=None if data.patients is None else data.patients.numbers[positions],
    )


def _draw_samples(
    images: BalancedSet, augmentation: list[keras.Layer], config: Config
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first images that the fit drew, augmented once more, and their labels."""
    positions = select_batch(0, n=len(images), batch_size=MAX_SAMPLES, seed=config.seed)
    pixels, labels = images.gather(positions)
    weights = np.ones(len(labels), np.float32)  # equal, so that labels are shares of area
    batch = (pixels, one_hot(labels, images.n_classes), weights)
    shown, shares, _ = (keras.ops.convert_to_numpy(x) for x in augment(augmentation, batch))
    return shown, shares
