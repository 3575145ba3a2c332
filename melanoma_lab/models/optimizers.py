"""Optimizers and learning-rate schedules.

A builder of an optimizer takes the options and returns a Keras optimizer. A builder of a schedule
takes (options, context) and returns a ``ScheduledLearningRate``.

The learning rate is a pure function of the step, so that a resumed training needs only the
optimizer's count of steps. The exception is the plateau schedule, which depends on the metrics: a
checkpoint contains its state, and its current learning rate is a variable of the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from melanoma_lab.config.schema.training import (
    MONITORS,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Optimizer,
    Plateau,
    RmsProp,
    Schedule,
    Sgd,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.registry import builder, find_builder


def build_optimizer(
    optimizer: Optimizer,
    network: keras.Model,
    *,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
) -> keras.Optimizer:
    """Build the configured optimizer.

    Weight decay, from the optimizer's or the regularisation's configuration, does not apply to
    weights with fewer than two dimensions: biases, and scales and offsets of normalisation.

    Args:
        weight_decay: factor that, times the learning rate, is the share by which a step reduces a
            kernel (Loshchilov and Hutter, 2019); 0 keeps the value from the optimizer's options.
    """
    built: keras.Optimizer = find_builder("optimizer", optimizer.name)(optimizer)
    built.learning_rate = learning_rate
    if weight_decay:
        built.weight_decay = weight_decay
    if optimizer.ema is not None:
        built.use_ema, built.ema_momentum = True, optimizer.ema
    built.exclude_from_weight_decay(
        var_list=[variable for variable in network.trainable_variables if len(variable.shape) < 2]
    )
    return built


@builder("optimizer", "adam")
def adam(optimizer: Adam) -> keras.Optimizer:
    """Build Adam (Kingma and Ba, 2015) with Keras's defaults."""
    return keras.optimizers.Adam(learning_rate=optimizer.learning_rate)


@builder("optimizer", "adamw")
def adamw(optimizer: AdamW) -> keras.Optimizer:
    """Build AdamW, with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return keras.optimizers.AdamW(
        learning_rate=optimizer.learning_rate, weight_decay=optimizer.weight_decay
    )


@builder("optimizer", "rmsprop")
def rmsprop(optimizer: RmsProp) -> keras.Optimizer:
    """Build RMSprop (Tieleman and Hinton, 2012)."""
    return keras.optimizers.RMSprop(
        learning_rate=optimizer.learning_rate, rho=optimizer.rho, momentum=optimizer.momentum
    )


@builder("optimizer", "sgd")
def sgd(optimizer: Sgd) -> keras.Optimizer:
    """Build stochastic gradient descent."""
    return keras.optimizers.SGD(
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )


#: Configuration key of the learning rate, except for later stages of a fine-tuning.
RATE_KEY = "optimizer.learning_rate"


@dataclass(frozen=True)
class ScheduleContext:
    """The part of a training that a schedule covers.

    Attributes:
        learning_rate: highest learning rate, as configured.
        steps_per_epoch: number of optimizer steps in an epoch, at least 1.
        epochs: largest number of epochs, at least 1.
        monitor: metric by which epochs are compared, one of ``MONITORS``.
        first_epoch: number of the first epoch, from 0; earlier epochs belong to other stages.
        rate_key: configuration key of the learning rate, for messages.
    """

    learning_rate: float
    steps_per_epoch: int
    epochs: int
    monitor: str
    first_epoch: int = 0
    rate_key: str = RATE_KEY

    @property
    def steps(self) -> int:
        """Number of optimizer steps in all epochs."""
        return self.steps_per_epoch * self.epochs

    def warmup_steps(self, epochs: float) -> int:
        """Return a warm-up's number of steps: 0 without one, else at least 1 and not all steps."""
        return min(max(1, round(epochs * self.steps_per_epoch)), self.steps - 1) if epochs else 0


class PlateauCallback(keras.callbacks.ReduceLROnPlateau):
    """Keras's ``ReduceLROnPlateau`` with a warm-up before it and a state that can be saved.

    An epoch that ends during the warm-up does not count. Every improvement counts, however small,
    as for the best epoch and for ``training.patience``.
    """

    def __init__(self, options: Plateau, context: ScheduleContext) -> None:
        super().__init__(
            context.monitor,
            factor=options.factor,
            patience=options.patience,
            mode=MONITORS[context.monitor],
            min_delta=0,
            min_lr=options.minimum,
        )
        self._context = context
        self._warmup = context.warmup_steps(options.warmup_epochs)
        self._first_step = 0
        self._restored: dict[str, float] = {}

    def state(self) -> dict[str, float]:
        """Return the state after an epoch; the optimizer has the learning rate."""
        best = {} if self.best is None else {"best": float(self.best)}
        return {"wait": float(self.wait), **best}

    def restore(self, state: Mapping[str, float]) -> None:
        """Restore a state that ``state`` returned when the fit begins."""
        self._restored = dict(state)

    def on_train_begin(self, logs: Any = None) -> None:
        """Reset the state, as Keras does, and then apply a restored one."""
        super().on_train_begin(logs)
        if self._restored:
            self.wait = int(self._restored["wait"])
            self.best = self._restored.get("best")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the number of the epoch's first step."""
        self._first_step = (epoch - self._context.first_epoch) * self._context.steps_per_epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the learning rate of a step of the warm-up, and of the first step after it."""
        step = self._first_step + batch
        if self._warmup and step <= self._warmup:
            rate = self._context.learning_rate * (step + 1) / (self._warmup + 1)
            self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Lower the learning rate if the monitored metric has stopped improving."""
        if self._first_step + self._context.steps_per_epoch > self._warmup:
            super().on_epoch_end(epoch, logs)


@dataclass(frozen=True)
class ScheduledLearningRate:
    """The learning rate of a stage and the callback that changes it, if any.

    Attributes:
        learning_rate: value or Keras schedule for the optimizer.
        plateau: Keras callback that lowers the learning rate; None if it depends on the step only.
    """

    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    plateau: PlateauCallback | None = None

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Keras callbacks that the fit must call."""
        return [] if self.plateau is None else [self.plateau]

    def state(self) -> dict[str, float]:
        """Return the state that a checkpoint needs in addition to the optimizer's variables."""
        return {} if self.plateau is None else self.plateau.state()

    def restore(self, state: Mapping[str, float]) -> None:
        """Restore a state that ``state`` returned; call it before the fit."""
        if self.plateau is not None:
            self.plateau.restore(state)


def build_schedule(schedule: Schedule, context: ScheduleContext) -> ScheduledLearningRate:
    """Build the configured learning-rate schedule.

    Raises:
        UserError: the schedule does not fit the configured learning rate.
    """
    built: ScheduledLearningRate = find_builder("schedule", schedule.name)(schedule, context)
    return built


@builder("schedule", "constant")
def constant(schedule: Constant, context: ScheduleContext) -> ScheduledLearningRate:
    """Build a constant learning rate, after a warm-up if one is configured."""
    if not schedule.warmup_epochs:
        return ScheduledLearningRate(context.learning_rate)
    return ScheduledLearningRate(_build_cosine(schedule.warmup_epochs, context, final_share=1.0))


@builder("schedule", "cosine")
def cosine(schedule: Cosine, context: ScheduleContext) -> ScheduledLearningRate:
    """Build half a cosine (Loshchilov and Hutter, 2017) without restarts."""
    return ScheduledLearningRate(
        _build_cosine(schedule.warmup_epochs, context, final_share=schedule.final_share)
    )


@builder("schedule", "plateau")
def plateau(schedule: Plateau, context: ScheduleContext) -> ScheduledLearningRate:
    """Build a schedule that lowers the rate when the monitored metric has stopped improving."""
    if schedule.minimum >= context.learning_rate:
        raise UserError(
            f"schedule.minimum={schedule.minimum:g}: expected less than {context.rate_key}="
            f"{context.learning_rate:g}, otherwise the rate is never lowered."
        )
    return ScheduledLearningRate(context.learning_rate, PlateauCallback(schedule, context))


def _build_cosine(
    warmup_epochs: float, context: ScheduleContext, *, final_share: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Build a linear warm-up and half a cosine down to a share of the rate (1: constant)."""
    warmup = context.warmup_steps(warmup_epochs)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(
            context.learning_rate, context.steps, alpha=final_share
        )
    return keras.optimizers.schedules.CosineDecay(
        # Not from 0, where the first step would have no effect: step s has (s + 1) / (warmup + 1).
        context.learning_rate / (warmup + 1),
        context.steps - warmup,
        alpha=final_share,
        warmup_target=context.learning_rate,
        warmup_steps=warmup,
    )
