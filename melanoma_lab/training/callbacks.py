"""What watches a fit: the record of its epochs, the best of them, its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import MONITORS
from melanoma_lab.core.interrupts import check_interrupt
from melanoma_lab.models.regularisation import compute_frozen_penalty
from melanoma_lab.training.checkpoint import CheckpointManager
from melanoma_lab.training.ema import use_averaged_weights
from melanoma_lab.training.fit_state import FitState

#: Told after every epoch: its number from 1, and its figures by name.
EpochListener = Callable[[int, Mapping[str, float]], None]
#: Told a few times a second: the step's number within the epoch from 1, and running figures.
StepListener = Callable[[int, Mapping[str, float]], None]


@dataclass
class _Clock:
    fit: float = 0.0
    epoch: float = 0.0
    training: float = 0.0
    shown: float = 0.0


class HistoryCallback(keras.callbacks.Callback):
    """Keeps every epoch's figures, tells steps, and stops when the loss is no number.

    Args:
        batch_size: images a step.
        on_step: told a few times a second.
    """

    def __init__(self, batch_size: int, on_step: StepListener) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.steps = 0
        self.diverged: str | None = None
        self._batch_size = batch_size
        self._on_step = on_step
        self._clock = _Clock()
        self._epoch_steps = 0
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Since training began, without what a killed process did in vain or was not there."""
        now = time.perf_counter()
        return self._seconds_before + (now - self._clock.fit if self._clock.fit else 0.0)

    def state(self) -> dict[str, Any]:
        """Figures, steps and seconds so far."""
        return {"history": list(self.history), "steps": self.steps, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.history = list(state["history"])
        self.steps = state["steps"]
        self._seconds_before = state["seconds"]

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._clock.fit = self._clock.fit or time.perf_counter()  # not of a later stage

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._clock.epoch = time.perf_counter()
        self._epoch_steps = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.steps += batch + 1 - self._epoch_steps  # more than one where several go at once
        self._epoch_steps = batch + 1
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

    def _check(self, figures: Mapping[str, float], epoch: int) -> None:
        loss = figures.get("train_loss", 0.0)
        if not np.isfinite(loss) and self.diverged is None:
            self.diverged = f"the loss became {loss} in epoch {epoch}, by step {self.steps}"
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and stops when no better one has come for long enough.

    As Keras's EarlyStopping, but with a state that a checkpoint can hold, and without ever taking
    an epoch for the best in which the loss of train or val was no number.

    Args:
        network: whose weights are kept, or their mean where the optimizer has one.
        monitor: the figure that decides, one of ``MONITORS``. To ``val_loss`` the penalty on frozen
            kernels is added: without it every epoch would look worse from when they train.
        patience: epochs without a better one after which training stops; None: never.
        patient_from: the first epoch, from 0, that counts as one without.
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
        """Whether training has to stop."""
        return self._patience is not None and self._waited >= self._patience

    def state(self) -> dict[str, Any]:
        """The best epoch (0: none so far), its score and weights, and how long ago it was."""
        return {
            "epoch": self.epoch,
            "score": self._score,
            "waited": self._waited,
            **{f"weight/{i}": weight for i, weight in enumerate(self._weights or [])},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self._score, self._waited = state["epoch"], state["score"], state["waited"]
        n_weights = sum(key.startswith("weight/") for key in state)
        self._weights = [state[f"weight/{i}"] for i in range(n_weights)] or None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        figures = logs or {}
        score = self._sign * self._compared(figures)
        # The train loss is a mean over steps: it does not tell what the last one has left behind.
        if np.isfinite([figures["loss"], figures["val_loss"]]).all() and score > self._score:
            self.epoch, self._score, self._waited = epoch + 1, score, 0
            with use_averaged_weights(self.model):
                self._weights = self._network.get_weights()
            return
        self._waited += epoch >= self._patient_from
        if self.out_of_patience:
            self.model.stop_training = True

    def _compared(self, figures: Mapping[str, float]) -> float:
        """What an epoch of any stage is compared by."""
        figure = figures[self._monitor]
        return (
            figure + compute_frozen_penalty(self._network)
            if self._monitor == "val_loss"
            else figure
        )

    def restore_best_weights(self) -> None:
        """Leave the network with the best epoch's weights, if an epoch was any good."""
        if self._weights is not None:
            self._network.set_weights(self._weights)


class ValidateAveragedWeights(keras.callbacks.Callback):
    """Lets ``fit`` validate the mean of the weights, if the optimizer keeps one."""

    def __init__(self) -> None:
        super().__init__()
        self._while_testing = ExitStack()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._while_testing.enter_context(use_averaged_weights(self.model))

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        self._while_testing.close()


class CheckpointCallback(keras.callbacks.Callback):
    """Offers a checkpoint after every epoch.

    Args:
        checkpoints: where they go.
        state: of the fit.
        recorder: knows whether the fit has diverged, which is not worth continuing.
        last_epoch: the epoch, from 1, after which the fit ends, whatever stage it is in.
    """

    def __init__(
        self,
        checkpoints: CheckpointManager,
        state: FitState,
        recorder: HistoryCallback,
        *,
        last_epoch: int,
    ) -> None:
        super().__init__()
        self._checkpoints, self._state, self._recorder = checkpoints, state, recorder
        self._last_epoch = last_epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if not self._recorder.diverged:
            last = self.model.stop_training or epoch + 1 == self._last_epoch
            self._checkpoints.save_if_affordable(lambda: self._state.take(epoch + 1), last=last)


class EpochLogger(keras.callbacks.Callback):
    """Tells every epoch's figures when everything else has been done with them.

    Args:
        recorder: has them.
        on_epoch: is told.
    """

    def __init__(self, recorder: HistoryCallback, on_epoch: EpochListener) -> None:
        super().__init__()
        self._recorder, self._on_epoch = recorder, on_epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._on_epoch(epoch + 1, self._recorder.history[-1])


class InterruptCallback(keras.callbacks.Callback):
    """Stops a fit between epochs that was asked to stop within one and went on."""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        check_interrupt()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        check_interrupt()
