"""Keras callbacks of a fit: history, best and averaged weights, checkpoints, log, interrupts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import MONITORS
from melanoma_lab.core.interrupts import check_interrupt
from melanoma_lab.models.regularisation import compute_frozen_penalty
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager


def assign_averaged_weights(model: keras.Model) -> None:
    """Replace the weights by their moving average, if there is one, as Keras does after a fit."""
    if _has_average(model):
        model.optimizer.finalize_variable_values(model.trainable_variables)


@contextmanager
def protect_untrained_weights(model: keras.Model) -> Iterator[None]:
    """Keep the weights unchanged if a fit in this context ends before its first step.

    At the end of a fit Keras replaces the weights by their average, even if that is still zero.
    """
    variables = model.trainable_variables if _averaging_optimizer(model).use_ema else []
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    yield
    if not _has_average(model):
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)


def _has_average(model: keras.Model) -> bool:
    """Return whether there is an average: not before a step, nor if loss scaling skipped all."""
    optimizer = _averaging_optimizer(model)
    return optimizer.use_ema and bool(keras.ops.convert_to_numpy(optimizer.iterations))


def _averaging_optimizer(model: keras.Model) -> keras.Optimizer:
    """Return the optimizer that averages weights: with loss scaling, the inner one."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def use_averaged_weights(model: keras.Model) -> Iterator[None]:
    """Use the averaged weights in this context, if the optimizer averages them."""
    if not _has_average(model):
        yield
        return
    variables = model.trainable_variables
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    assign_averaged_weights(model)
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)


#: Called after every epoch with its number, from 1, and its metrics by name.
EpochListener = Callable[[int, Mapping[str, float]], None]
#: Called a few times a second with the step's number within the epoch, from 1, and running metrics.
StepListener = Callable[[int, Mapping[str, float]], None]


class HistoryCallback(keras.callbacks.Callback):
    """Keras callback that records metrics, reports steps and stops if the loss is not finite."""

    def __init__(self, batch_size: int, on_step: StepListener) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.steps = 0
        self.diverged: str | None = None
        self._batch_size = batch_size
        self._on_step = on_step
        # Times in seconds: starts of the fit and the epoch, training in the epoch, last report.
        self._fit_start = self._epoch_start = self._epoch_training = self._reported = 0.0
        self._epoch_steps = 0
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds spent training, without work that was lost when a process was killed."""
        now = time.perf_counter()
        return self._seconds_before + (now - self._fit_start if self._fit_start else 0.0)

    def state(self) -> dict[str, Any]:
        """Return the metrics, steps and seconds so far."""
        return {"history": list(self.history), "steps": self.steps, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state`` returned."""
        self.history = list(state["history"])
        self.steps = state["steps"]
        self._seconds_before = state["seconds"]

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._fit_start = self._fit_start or time.perf_counter()  # a later stage does not reset it

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch_start = time.perf_counter()
        self._epoch_steps = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.steps += batch + 1 - self._epoch_steps  # Keras may run several steps in one call
        self._epoch_steps = batch + 1
        now = time.perf_counter()
        self._epoch_training = now - self._epoch_start
        # Reading a metric waits for the device, so it is not done after every step.
        if now - self._reported > 0.25:
            self._reported = now
            metrics = {f"train_{name}": float(value) for name, value in (logs or {}).items()}
            self._check_loss(metrics, len(self.history) + 1)
            self._on_step(self._epoch_steps, metrics)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        metrics = {
            name if name.startswith("val_") else f"train_{name}": float(value)
            for name, value in (logs or {}).items()
        }
        rate = self.model.optimizer.learning_rate
        metrics["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        metrics["seconds"] = time.perf_counter() - self._epoch_start
        metrics["images_per_second"] = (
            self._epoch_steps * self._batch_size / max(self._epoch_training, 1e-9)
        )
        self._check_loss(metrics, epoch + 1)
        self.history.append(metrics)

    def _check_loss(self, metrics: Mapping[str, float], epoch: int) -> None:
        loss = metrics.get("train_loss", 0.0)
        if not np.isfinite(loss) and self.diverged is None:
            self.diverged = f"the loss became {loss} in epoch {epoch}, by step {self.steps}"
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keras callback that keeps the weights of the best epoch and stops training early.

    It works like Keras's ``EarlyStopping``, but a checkpoint can hold its state, and an epoch whose
    loss on train or val is not finite is never the best.

    Args:
        network: network whose weights are kept; if the optimizer averages weights, the averages.
        monitor: metric by which epochs are compared, one of ``MONITORS``. The penalty on frozen
            kernels is added to ``val_loss``. Otherwise every epoch after they are unfrozen would
            look worse.
        patience: number of epochs without improvement after which training stops; None: never.
        patient_from: the first epoch, from 0, that counts towards patience.
    """

    def __init__(
        self,
        network: keras.Model,
        monitor: str,
        patience: int | None,
        *,
        patient_from: int = 0,
    ) -> None:
        super().__init__()
        self._patient_from = patient_from
        self.epoch = 0
        self._network = network
        self._monitor, self._sign = monitor, {"min": -1.0, "max": 1.0}[MONITORS[monitor]]
        self._patience = patience
        self._score = -np.inf
        self._waited = 0
        self._weights: list[NDArray[Any]] | None = None

    @property
    def out_of_patience(self) -> bool:
        """Whether training must stop."""
        return self._patience is not None and self._waited >= self._patience

    def state(self) -> dict[str, Any]:
        """Return the best epoch (0 if none), its score and weights, and the epochs waited since."""
        return {
            "epoch": self.epoch,
            "score": self._score,
            "waited": self._waited,
            **{f"weight/{i}": weight for i, weight in enumerate(self._weights or [])},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state`` returned."""
        self.epoch, self._score, self._waited = state["epoch"], state["score"], state["waited"]
        n_weights = sum(key.startswith("weight/") for key in state)
        self._weights = [state[f"weight/{i}"] for i in range(n_weights)] or None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        metrics = logs or {}
        score = self._sign * self._monitored_value(metrics)
        # The train loss is a mean over the steps before it; only val shows the last step's effect.
        if np.isfinite([metrics["loss"], metrics["val_loss"]]).all() and score > self._score:
            self.epoch, self._score, self._waited = epoch + 1, score, 0
            with use_averaged_weights(self.model):
                self._weights = self._network.get_weights()
            return
        self._waited += epoch >= self._patient_from
        if self.out_of_patience:
            self.model.stop_training = True

    def _monitored_value(self, metrics: Mapping[str, float]) -> float:
        """Return the value by which epochs of all stages are compared."""
        value = metrics[self._monitor]
        if self._monitor == "val_loss":
            return value + compute_frozen_penalty(self._network)
        return value

    def restore_best_weights(self) -> None:
        """Give the network the weights of the best epoch, if there is one."""
        if self._weights is not None:
            self._network.set_weights(self._weights)


class ValidateAveragedWeights(keras.callbacks.Callback):
    """Keras callback that makes ``fit`` validate the averaged weights, if there are any."""

    def __init__(self) -> None:
        super().__init__()
        self._averaged_weights = ExitStack()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._averaged_weights.enter_context(use_averaged_weights(self.model))

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        self._averaged_weights.close()


class CheckpointCallback(keras.callbacks.Callback):
    """Keras callback that offers the fit's state to the checkpoint manager after every epoch.

    Args:
        recorder: history of the fit; after it has diverged, no checkpoint is saved.
        last_epoch: the epoch, from 1, after which the fit ends, over all stages.
    """

    def __init__(
        self,
        checkpoints: CheckpointManager,
        take: Callable[[int], Checkpoint],
        recorder: HistoryCallback,
        *,
        last_epoch: int,
    ) -> None:
        super().__init__()
        self._checkpoints, self._take, self._recorder = checkpoints, take, recorder
        self._last_epoch = last_epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if not self._recorder.diverged:
            last = self.model.stop_training or epoch + 1 == self._last_epoch
            self._checkpoints.save_if_affordable(lambda: self._take(epoch + 1), last=last)


class EpochLogger(keras.callbacks.Callback):
    """Keras callback that reports every epoch's metrics after the other callbacks have run."""

    def __init__(self, recorder: HistoryCallback, on_epoch: EpochListener) -> None:
        super().__init__()
        self._recorder, self._on_epoch = recorder, on_epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._on_epoch(epoch + 1, self._recorder.history[-1])


class InterruptCallback(keras.callbacks.Callback):
    """Keras callback that stops between epochs if an interrupt during an epoch was swallowed."""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        check_interrupt()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        check_interrupt()
