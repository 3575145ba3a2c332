"""The fit: batches in, the weights of the best epoch out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from melanoma_lab.config.schema.training import MONITORS, Training
from melanoma_lab.errors import RunError
from melanoma_lab.training import replicas
from melanoma_lab.training.augmented import AugmentedNetwork
from melanoma_lab.training.machine import device_count
from melanoma_lab.training.trained import Fit

#: Told after every epoch: its number from 1, and its figures by name.
EpochListener = Callable[[int, Mapping[str, float]], None]


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


def fit_network(
    network: keras.Model,
    augmentation: list[keras.Layer],
    optimizer: keras.Optimizer,
    train: Any,
    val: Any,
    *,
    options: Training,
    steps_per_epoch: int,
    loss: keras.losses.Loss,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_step: Callable[[int, Mapping[str, float]], None],
    on_epoch: EpochListener,
) -> Fit:
    """Train a network in place and leave it with the weights of its best epoch.

    Args:
        network: from pixels to probabilities.
        augmentation: layers that change a batch before each training step.
        optimizer: fresh.
        train: tf.data of (pixels, one-hot labels, weights), one element a step, for all epochs.
        val: the same, for one pass.
        options: epochs, patience and monitor.
        steps_per_epoch: optimizer steps an epoch.
        loss: what is lowered. ``val_loss`` is the same, label smoothing and weight penalties
            included, with every image weighing one: the epoch that it keeps is the best at what
            was trained for. It compares epochs, not arms of different losses; ``val/log_loss``
            does that.
        callbacks: a schedule's; told before the epoch is judged.
        on_step: told after a step, a few times a second: its number within the epoch from 1, and
            the epoch's running figures.
        on_epoch: told after an epoch.

    Returns:
        What was done; a diverged fit is left with its best finite epoch's weights if it had one.

    Raises:
        RunError: the machine has not enough memory.
    """

    def compiled(model: keras.Model, optimizer: keras.Optimizer | None) -> keras.Model:
        model.compile(
            optimizer=optimizer,
            loss=loss,
            metrics=["accuracy", BalancedAccuracy(network.output_shape[-1])],
            # XLA is 3 to 4 times slower on a CPU, and Keras's "auto" picks it on a GPU only.
            jit_compile=False,
        )
        return model

    with replicas.scope(options):
        # A model of its own, so that what is kept carries no optimizer, loss or metric.
        trained = AugmentedNetwork(network, augmentation)
        compiled(trained, replicas.with_loss_scaling(optimizer))
    best = keras.callbacks.EarlyStopping(
        options.monitor,
        mode=MONITORS[options.monitor],
        patience=options.patience or options.epochs,
        restore_best_weights=True,
    )
    recorder = _Recorder(options.batch_size, on_step, on_epoch)
    callbacks = [recorder, *callbacks, best]
    if device_count(options) > 1:
        alone = compiled(replicas.on_one_device(network), None)
        callbacks = [replicas.Validation(alone, val), *callbacks, replicas.SeparateRandomness()]
        val = None
    started = time.perf_counter()
    try:
        trained.fit(
            train,
            validation_data=val,
            epochs=options.epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=callbacks,
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
        rate = self.model.optimizer.learning_rate
        figures["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
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
