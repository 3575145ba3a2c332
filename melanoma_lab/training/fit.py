"""Fit a network, from the start or from a checkpoint, and keep the weights of its best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
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
from melanoma_lab.training.hardware import require_device_count
from melanoma_lab.training.train_steps import Stage
from melanoma_lab.training.training_result import FitResult


class Stateful(Protocol):
    """An object that keeps state from epoch to epoch, such as a callback."""

    def state(self) -> Mapping[str, Any]:
        """Return the state: arrays that are not modified later, and values that JSON can hold."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state`` returned, in this process or another."""


class FitState:
    """The state that changes while a model is fitted.

    It consists of the model's variables (weights, moving averages, the states of its layers' random
    generators), the optimizer's variables (moments, step, learning rate, loss scale), and the state
    of callbacks. The images of a step depend on the seed and the step only, so that they need no
    state.
    """

    def __init__(self, model: keras.Model, stateful: Mapping[str, Stateful]) -> None:
        # Without this, the optimizer's variables exist only after its first step.
        model.optimizer.build(model.trainable_variables)
        self._variables = [*model.variables, *model.optimizer.variables]
        self._stateful = stateful

    def take(self, epoch: int) -> Checkpoint:
        """Copy the state into a checkpoint."""
        arrays = {
            f"variable/{i}": keras.ops.convert_to_numpy(variable)
            for i, variable in enumerate(self._variables)
        }
        facts: dict[str, dict[str, Any]] = {}
        for name, part in self._stateful.items():
            facts[name] = {}
            for key, value in part.state().items():
                if isinstance(value, np.ndarray):
                    arrays[f"{name}/{key}"] = value
                else:
                    facts[name][key] = value
        return Checkpoint(epoch, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state from a checkpoint.

        Raises:
            RunError: the checkpoint was taken from another model.
        """
        values = [checkpoint.arrays.get(f"variable/{i}") for i in range(len(self._variables))]
        for variable, value in zip(self._variables, values, strict=True):
            if value is None or value.shape != tuple(variable.shape):
                raise RunError(
                    f"The checkpoint of epoch {checkpoint.epoch} is from another network: "
                    f"{variable.path} has shape {tuple(variable.shape)}, there "
                    f"{None if value is None else value.shape}. training.resume=false starts over."
                )
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        for name, part in self._stateful.items():
            prefix = f"{name}/"
            arrays = {
                key.removeprefix(prefix): value
                for key, value in checkpoint.arrays.items()
                if key.startswith(prefix)
            }
            part.restore({**checkpoint.facts[name], **arrays})


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

    for stage in (each for each in stages if each.epochs.start < options.last_epoch):
        with distribution.scope(options):
            trained = compiled(
                stage.model(), distribution.with_loss_scaling(stage.optimizer), stage.at_once
            )
        values = sum(math.prod(variable.shape) for variable in trained.trainable_variables)
        trainable = max(trainable, values)
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
                CheckpointCallback(checkpoints, state.take, recorder, last_epoch=options.last_epoch)
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
