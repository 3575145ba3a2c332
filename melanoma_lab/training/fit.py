"""The fit: batches in, the weights of the best epoch out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from melanoma_lab.config.schema.training import MONITORS, Training
from melanoma_lab.errors import RunError

#: Told after every epoch: its number from 1, and its figures by name.
EpochListener = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Fit:
    """What a fit did.

    Attributes:
        history: figures of every epoch: train_loss, train_accuracy, train_balanced_accuracy, the
            same of val, seconds, images_per_second. The train ones are running means in training
            mode, with dropout and augmentation.
        best_epoch: number, from 1, of the epoch whose weights were kept.
        optimizer_steps: steps taken, also after the best epoch.
        seconds: from the first step to the last validation.
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


def fit_network(
    network: keras.Model,
    augmentation: list[keras.Layer],
    optimizer: keras.Optimizer,
    train: Any,
    val: Any,
    *,
    options: Training,
    steps_per_epoch: int,
    on_step: Callable[[int, Mapping[str, float]], None],
    on_epoch: EpochListener,
) -> Fit:
    """Train a network in place and leave it with the weights of its best epoch.

    Args:
        network: from pixels to probabilities.
        augmentation: layers that stand in front of it while it trains.
        optimizer: fresh.
        train: tf.data of (pixels, one-hot labels, weights), one element a step, for all epochs.
        val: the same, for one pass.
        options: epochs, patience and monitor.
        steps_per_epoch: optimizer steps an epoch.
        on_step: told after a step, a few times a second: its number within the epoch from 1, and
            the epoch's running figures.
        on_epoch: told after an epoch.

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
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            BalancedAccuracy(network.output_shape[-1]),
        ],
        # XLA is 3 to 4 times slower on a CPU, and Keras's "auto" picks it on a GPU only.
        jit_compile=False,
    )
    # Variables that are made while a step is traced leave graphs behind that nobody frees.
    trained.optimizer.build(trained.trainable_variables)
    best = keras.callbacks.EarlyStopping(
        options.monitor,
        mode=MONITORS[options.monitor],
        patience=options.patience or options.epochs,
        restore_best_weights=True,
    )
    recorder = _Recorder(options.batch_size, on_step, on_epoch)
    started = time.perf_counter()
    try:
        trained.fit(
            train,
            validation_data=val,
            epochs=options.epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=[recorder, best],
            shuffle=False,  # the batches come in the order that the seed gives them
            verbose=0,
        )
    except tf.errors.ResourceExhaustedError as error:
        raise RunError(
            f"out of memory while training with training.batch_size={options.batch_size}; "
            "lower it, or dataset.image_size."
        ) from error
    return Fit(
        history=recorder.history,
        best_epoch=best.best_epoch + 1,
        optimizer_steps=recorder.steps,
        seconds=time.perf_counter() - started,
        diverged=recorder.diverged,
    )


@dataclass
class _Clock:
    epoch: float = 0.0
    training: float = 0.0
    shown: float = 0.0


class _Recorder(keras.callbacks.Callback):
    """Keeps every epoch's figures, passes them on, and stops when the loss is no number."""

    def __init__(
        self,
        batch_size: int,
        on_step: Callable[[int, Mapping[str, float]], None],
        on_epoch: EpochListener,
    ) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.steps = 0
        self.diverged: str | None = None
        self._batch_size = batch_size
        self._on_step, self._on_epoch = on_step, on_epoch
        self._clock = _Clock()
        self._epoch_steps = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._clock.epoch = time.perf_counter()
        self._epoch_steps = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.steps += 1
        self._epoch_steps += 1
        now = time.perf_counter()
        self._clock.training = now - self._clock.epoch
        # Reading a figure waits for the device, so it is not done at every step.
        if now - self._clock.shown > 0.25:
            self._clock.shown = now
            figures = {f"train_{name}": float(value) for name, value in (logs or {}).items()}
            self._check(figures, len(self.history) + 1)
            self._on_step(self._epoch_steps, figures)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        figures = {
            name if name.startswith("val_") else f"train_{name}": float(value)
            for name, value in (logs or {}).items()
        }
        figures["seconds"] = time.perf_counter() - self._clock.epoch
        figures["images_per_second"] = (
            self._epoch_steps * self._batch_size / max(self._clock.training, 1e-9)
        )
        self._check(figures, epoch + 1)
        self.history.append(figures)
        self._on_epoch(epoch + 1, figures)

    def _check(self, figures: Mapping[str, float], epoch: int) -> None:
        loss = figures.get("train_loss", 0.0)
        if not np.isfinite(loss) and self.diverged is None:
            self.diverged = f"the loss became {loss} in epoch {epoch}, by step {self.steps}"
            self.model.stop_training = True
