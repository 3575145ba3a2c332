"""The fit: batches in, the weights of the best epoch out; from the start or from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from melanoma_lab.config.schema.training import Training
from melanoma_lab.errors import RunError
from melanoma_lab.training.callbacks import (
    BestEpoch,
    EpochListener,
    Keeper,
    Recorder,
    StepListener,
    Teller,
)
from melanoma_lab.training.checkpoint import Checkpoint, Checkpoints
from melanoma_lab.training.state import FitState

#: What the record of the epochs is called in a checkpoint.
RECORDER = "recorder"


@dataclass(frozen=True)
class Fit:
    """What a fit did, from its first epoch on, in however many processes.

    Attributes:
        history: figures of every epoch: train_loss, train_accuracy, train_balanced_accuracy, the
            same of val, seconds, images_per_second. The train ones are running means in training
            mode, with dropout and augmentation.
        best_epoch: number, from 1, of the epoch whose weights were kept.
        optimizer_steps: steps taken, also after the best epoch.
        seconds: from the first step to the last validation, without what was done in vain between
            the last checkpoint and the end of a process that was killed.
        diverged: where and how the loss stopped being a number; None where it did not.
    """

    history: list[dict[str, float]]
    best_epoch: int
    optimizer_steps: int
    seconds: float
    diverged: str | None


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
            y_true: one-hot, shape (b, n_classes).
            y_pred: probabilities, shape (b, n_classes).
            sample_weight: ignored.
        """
        del sample_weight
        y_true = keras.ops.cast(y_true, "float32")
        hit = keras.ops.equal(keras.ops.argmax(y_true, -1), keras.ops.argmax(y_pred, -1))
        hit = keras.ops.cast(hit, "float32")
        self.seen.assign_add(keras.ops.sum(y_true, axis=0))
        self.right.assign_add(keras.ops.sum(y_true * hit[:, None], axis=0))

    def result(self) -> Any:
        """Mean over classes that occurred of the share that was right."""
        occurs = keras.ops.cast(self.seen > 0, "float32")
        sensitivity = self.right / keras.ops.maximum(self.seen, 1)
        return keras.ops.sum(sensitivity * occurs) / keras.ops.maximum(keras.ops.sum(occurs), 1)


def epochs_until(checkpoint: Checkpoint) -> list[dict[str, float]]:
    """The figures of every epoch before a checkpoint, as in ``Fit.history``."""
    return list(checkpoint.facts[RECORDER]["history"])


def fit_network(
    network: keras.Model,
    augmentation: list[keras.Layer],
    optimizer: keras.Optimizer,
    train: Any,
    val: Any,
    *,
    options: Training,
    steps_per_epoch: int,
    on_step: StepListener,
    on_epoch: EpochListener,
    start: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Train a network in place and leave it with the weights of its best epoch.

    Args:
        network: from pixels to probabilities.
        augmentation: layers that stand in front of it while it trains.
        optimizer: fresh.
        train: tf.data of (pixels, one-hot labels, weights), one element a step, for all epochs
            that are still to come.
        val: the same, for one pass.
        options: epochs, patience and monitor.
        steps_per_epoch: optimizer steps an epoch.
        on_step: told after a step, a few times a second: its number within the epoch from 1, and
            the epoch's running figures.
        on_epoch: told after an epoch.
        start: the state to go on from, with the bits of a fit that was never interrupted; None:
            a fit from the start.
        checkpoints: where the state after every epoch is kept; None: nowhere.

    Returns:
        What was done; a diverged fit is left with its best finite epoch's weights if it had one.

    Raises:
        RunError: the machine has not enough memory.
    """
    inputs = keras.Input(network.input_shape[1:], name="pixels")
    x = inputs
    for layer in augmentation:
        x = layer(x)
    # A model of its own, so that what is kept carries no optimizer, loss or metric.
    trained = keras.Model(inputs, network(x), name="training")
    trained.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy", BalancedAccuracy(network.output_shape[-1])],
        # XLA is 3 to 4 times slower on a CPU, and Keras's "auto" picks it on a GPU only.
        jit_compile=False,
    )
    best = BestEpoch(network, options.monitor, options.patience)
    recorder = Recorder(options.batch_size, on_step)
    # A callback that remembers anything from epoch to epoch belongs in here.
    state = FitState(trained, {RECORDER: recorder, "best": best})
    # The checkpoint comes before the telling: what has been told is on its way to the disk.
    watching = [recorder, best]
    if checkpoints is not None:
        watching.append(Keeper(checkpoints, state, recorder))
    watching.append(Teller(recorder, on_epoch))
    if start is not None:
        state.put_back(start)
    done = start.epoch if start is not None else 0
    try:
        if done < options.epochs and not best.out_of_patience:
            trained.fit(
                train,
                validation_data=val,
                initial_epoch=done,
                epochs=options.epochs,
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
    best.put_back_weights()
    return Fit(
        history=recorder.history,
        best_epoch=best.epoch,
        optimizer_steps=recorder.steps,
        seconds=seconds,
        diverged=recorder.diverged,
    )
