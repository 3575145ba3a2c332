"""The fit: batches in, the weights of the best epoch out; from the start or from a checkpoint."""

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
)
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.ema import assign_averaged_weights, protect_untrained_weights
from melanoma_lab.training.fit_state import FitState, Stateful
from melanoma_lab.training.hardware import require_device_count
from melanoma_lab.training.train_steps import Stage
from melanoma_lab.training.training_result import FitResult

#: What remembers something from epoch to epoch, as it is called in a checkpoint.
RECORDER, BEST, SCHEDULE = "recorder", "best", "schedule"


class BalancedAccuracy(keras.metrics.Metric):
    """Mean sensitivity over the classes that occur, as scikit-learn's ``balanced_accuracy_score``.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int, name: str = "balanced_accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.right = self.add_variable((n_classes,), "zeros", name="right")
        self.seen = self.add_variable((n_classes,), "zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; every image counts once, whatever its weight in the loss.

        Args:
            y_true: labels, shape (b, n_classes); a mixed image counts for the class that has the
                largest share, as in Keras's categorical accuracy.
            y_pred: probabilities, shape (b, n_classes).
            sample_weight: ignored.
        """
        del sample_weight
        dominant = keras.ops.argmax(y_true, -1)
        hit = keras.ops.cast(keras.ops.equal(dominant, keras.ops.argmax(y_pred, -1)), "float32")
        true = keras.ops.one_hot(dominant, y_true.shape[-1], dtype="float32")
        self.seen.assign_add(keras.ops.sum(true, axis=0))
        self.right.assign_add(keras.ops.sum(true * hit[:, None], axis=0))

    def result(self) -> Any:
        """Mean over classes that occurred of the share that was right."""
        occurs = keras.ops.cast(self.seen > 0, "float32")
        sensitivity = self.right / keras.ops.maximum(self.seen, 1)
        return keras.ops.sum(sensitivity * occurs) / keras.ops.maximum(keras.ops.sum(occurs), 1)


def read_history(checkpoint: Checkpoint) -> list[dict[str, float]]:
    """The figures of every epoch before a checkpoint, as in ``FitResult.history``."""
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
        network: from pixels to probabilities.
        stages: in their order; their epochs are those of ``options`` without a gap, also where
            training is to stop after fewer.
        options: epochs, patience and monitor. Patience is for the last stage: an earlier one has
            all its epochs.
        steps_per_epoch: optimizer steps an epoch.
        loss: what is lowered. ``val_loss`` is the same, label smoothing and weight penalties
            included, with every image weighing one: the epoch that it keeps is the best at what
            was trained for. As frozen kernels are no part of a stage's loss, their penalty is
            added where epochs are compared, not in the figure. It compares epochs, not arms of
            different losses; ``val/log_loss`` does that.
        on_step: told after a step, a few times a second: its number within the epoch from 1, and
            the epoch's running figures.
        on_epoch: told after an epoch.
        start: the state to go on from, with the bits of a fit that was never interrupted; None:
            a fit from the start.
        checkpoints: where the state after every epoch is kept; None: nowhere.

    Returns:
        What was done; a fit is left with its best finite epoch's weights if it had one.

    Raises:
        RunError: the machine has not enough memory.
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

    for stage in _begun(stages, options):
        with distribution.scope(options):
            trained = compiled(
                stage.model(), distribution.with_loss_scaling(stage.optimizer), stage.at_once
            )
        trainable = max(trainable, _size(trained.trainable_variables))
        if done > stage.epochs.stop:
            continue  # the checkpoint is of a later stage, and holds what this one has come to
        memories: dict[str, Stateful] = {RECORDER: recorder, BEST: best}
        watching = [recorder, ValidateAveragedWeights()]
        if stage.schedule is not None:
            memories[SCHEDULE] = stage.schedule
            watching += stage.schedule.callbacks  # told before the epoch is judged
        with distribution.scope(options):
            state = FitState(trained, memories)
            if start is not None and done > stage.epochs.start:
                state.restore(start)
        # The checkpoint comes before the telling: what has been told is on its way to the disk.
        watching.append(best)
        if checkpoints is not None:
            watching.append(
                CheckpointCallback(checkpoints, state, recorder, last_epoch=options.last_epoch)
            )
        watching += [EpochLogger(recorder, on_epoch), InterruptCallback()]
        val = stage.val
        if require_device_count(options) > 1:
            alone = compiled(distribution.rebuild_on_one_device(network), None)
            watching = [
                distribution.ValidationCallback(alone, val),
                *watching,
                distribution.ReplicaSeedsCallback(),
            ]
            val = None
        first, stop = max(done, stage.epochs.start), min(stage.epochs.stop, options.last_epoch)
        if first >= stop or best.out_of_patience or recorder.diverged:
            # As Keras does after a fit: the next stage begins with the mean of the weights.
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
                    callbacks=watching,
                    shuffle=False,  # the batches come in the order that the seed gives them
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


def _begun(stages: Sequence[Stage], options: Training) -> list[Stage]:
    """The stages that training comes to before it is to end."""
    return [stage for stage in stages if stage.epochs.start < options.last_epoch]


def _size(variables: Sequence[keras.Variable]) -> int:
    """How many numbers variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)
