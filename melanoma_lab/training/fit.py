"""Fit a network, from the start or from a checkpoint, and keep the weights of its best epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from melanoma_lab.config.schema.training import Training
from melanoma_lab.core.errors import RunError
from melanoma_lab.training import distribution
from melanoma_lab.training.callbacks import (
    BestWeights,
    CheckpointCallback,
    EpochListener,
    EpochLogger,
    HistoryCallback,
    InterruptCallback,
    StepListener,
    ValidateAveragedWeights,
    assign_averaged_weights,
    protect_untrained_weights,
)
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.fit_state import FitState, Stateful
from melanoma_lab.training.hardware import require_device_count
from melanoma_lab.training.train_steps import Stage
from melanoma_lab.training.training_result import FitResult

#: Names in a checkpoint of the objects whose state must survive an interruption.
RECORDER, BEST, SCHEDULE = "recorder", "best", "schedule"


class BalancedAccuracy(keras.metrics.Metric):
    """Keras metric: mean sensitivity of the classes that occur in the labels.

    It equals scikit-learn's ``balanced_accuracy_score``.
    """

    def __init__(self, n_classes: int, name: str = "balanced_accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.right = self.add_variable((n_classes,), "zeros", name="right")
        self.seen = self.add_variable((n_classes,), "zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; every image counts once, whatever its weight in the loss.

        Args:
            y_true: labels, shape (b, n_classes). A mixed image counts for the class with the
                largest share, as in Keras's categorical accuracy.
        """
        del sample_weight
        dominant = keras.ops.argmax(y_true, -1)
        hit = keras.ops.cast(keras.ops.equal(dominant, keras.ops.argmax(y_pred, -1)), "float32")
        true = keras.ops.one_hot(dominant, y_true.shape[-1], dtype="float32")
        self.seen.assign_add(keras.ops.sum(true, axis=0))
        self.right.assign_add(keras.ops.sum(true * hit[:, None], axis=0))

    def result(self) -> Any:
        """Return the mean sensitivity of the classes that occurred; 0 if there were no images."""
        occurs = keras.ops.cast(self.seen > 0, "float32")
        sensitivity = self.right / keras.ops.maximum(self.seen, 1)
        return keras.ops.sum(sensitivity * occurs) / keras.ops.maximum(keras.ops.sum(occurs), 1)


def read_history(checkpoint: Checkpoint) -> list[dict[str, float]]:
    """Read the metrics of all epochs before a checkpoint, as in ``FitResult.history``."""
    return list(checkpoint.facts[RECORDER]["history"])


def fit_network(
    network: keras.Model,
    stages: Sequence[Stage],
    *,
    options: Training,
    steps_per_epoch: int,
    loss: keras.losses.Loss,
    on_step: StepListener,
    on_epoch: EpochListener,
    start: Checkpoint | None = None,
    checkpoints: CheckpointManager | None = None,
) -> FitResult:
    """Train a network in place and leave it with the weights of its best epoch.

    Args:
        network: model from pixels, perhaps with metadata, to probabilities.
        stages: stages in order. Their epochs are those of ``options`` without a gap, even if
            training is configured to stop earlier.
        options: training options, such as epochs, patience and monitor. Patience counts in the last
            stage only; every earlier stage runs all its epochs.
        loss: loss that is minimised. ``val_loss`` is the same loss, with label smoothing and weight
            penalties, but every image has weight 1, so that the best epoch is the best at the
            objective that was trained. Keras leaves frozen kernels out of the loss; their penalty
            is added to ``val_loss`` when epochs are compared, but not to the reported value. Use
            ``val_loss`` to compare epochs, and ``val/log_loss`` to compare arms with different
            losses.
        start: checkpoint to resume from, with exactly the result of an uninterrupted fit; None to
            start from the beginning.

    Returns:
        The history of the fit. The network has the weights of its best epoch, or those of its last
        step if no epoch had finite losses.

    Raises:
        RunError: the machine does not have enough memory.
    """
    best = BestWeights(
        network, options.monitor, options.patience, patient_from=stages[-1].epochs.start
    )
    recorder = HistoryCallback(options.batch_size, on_step)
    done = start.epoch if start is not None else 0
    trainable = 0

    def compiled(
        model: keras.Model, optimizer: keras.Optimizer | None, at_once: int = 1
    ) -> keras.Model:
        model.compile(
            optimizer=optimizer,
            loss=loss,
            metrics=[
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                BalancedAccuracy(network.output_shape[-1]),
            ],
            # XLA is 3 to 4 times slower on a CPU, and Keras's "auto" picks it on a GPU only.
            jit_compile=False,
            steps_per_execution=at_once,
        )
        return model

    for stage in _started_stages(stages, options):
        with distribution.scope(options):
            trained = compiled(
                stage.model(), distribution.with_loss_scaling(stage.optimizer), stage.at_once
            )
        trainable = max(trainable, _count_values(trained.trainable_variables))
        if done > stage.epochs.stop:
            continue  # the checkpoint is of a later stage and contains the result of this one
        stateful: dict[str, Stateful] = {RECORDER: recorder, BEST: best}
        callbacks = [recorder, ValidateAveragedWeights()]
        if stage.schedule is not None:
            stateful[SCHEDULE] = stage.schedule
            callbacks += stage.schedule.callbacks  # they run before epochs are compared
        with distribution.scope(options):
            state = FitState(trained, stateful)
            if start is not None and done > stage.epochs.start:
                state.restore(start)
        # Save the checkpoint before logging, so that every logged epoch is being written to disk.
        callbacks.append(best)
        if checkpoints is not None:
            callbacks.append(
                CheckpointCallback(checkpoints, state, recorder, last_epoch=options.last_epoch)
            )
        callbacks += [EpochLogger(recorder, on_epoch), InterruptCallback()]
        val = stage.val
        if require_device_count(options) > 1:
            on_one_device = compiled(distribution.rebuild_on_one_device(network), None)
            callbacks = [
                distribution.ValidationCallback(on_one_device, val),
                *callbacks,
                distribution.ReplicaSeedsCallback(),
            ]
            val = None
        first, stop = max(done, stage.epochs.start), min(stage.epochs.stop, options.last_epoch)
        if first >= stop or best.out_of_patience or recorder.diverged:
            # As Keras does after a fit: the next stage begins with the averaged weights.
            assign_averaged_weights(trained)
            continue
        try:
            with protect_untrained_weights(trained):
                trained.fit(
                    stage.train(first),
                    validation_data=val,
                    initial_epoch=first,
                    epochs=stop,
                    steps_per_epoch=steps_per_epoch,
                    callbacks=callbacks,
                    shuffle=False,  # the seed has already decided the order of the batches
                    verbose=0,
                )
        except tf.errors.ResourceExhaustedError as error:
            raise RunError(
                f"out of memory while training with training.batch_size={options.batch_size}; "
                "lower it, or dataset.image_size."
            ) from error
    seconds = recorder.seconds
    best.restore_best_weights()
    return FitResult(
        history=recorder.history,
        best_epoch=best.epoch,
        optimizer_steps=recorder.steps,
        seconds=seconds,
        diverged=recorder.diverged,
        trainable=trainable,
    )


def _started_stages(stages: Sequence[Stage], options: Training) -> list[Stage]:
    """Return the stages that start before training ends."""
    return [stage for stage in stages if stage.epochs.start < options.last_epoch]


def _count_values(variables: Sequence[keras.Variable]) -> int:
    """Count the numbers that variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)
