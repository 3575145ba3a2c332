"""Learning-rate schedules. A builder of (options, course) returns a ``ScheduledLearningRate``.

What the rate is at a step is a pure function of the step, so a training that is taken up again
needs no more than the optimizer's own count of steps. A plateau cannot be foreseen: what it
remembers is its state, and the rate that it has come to is a variable of the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from melanoma_lab.config.schema import schedule as schema
from melanoma_lab.config.schema.training import MONITORS
from melanoma_lab.core.errors import UserError
from melanoma_lab.registry import builder, find_builder

#: The key of the configuration that says the learning rate of most courses.
RATE_KEY = "optimizer.learning_rate"


@dataclass(frozen=True)
class ScheduleContext:
    """What a schedule is laid over.

    Attributes:
        learning_rate: the highest rate, as configured.
        steps_per_epoch: optimizer steps an epoch, at least 1.
        epochs: how many there are at most, at least 1.
        monitor: the figure of an epoch that says whether it was better, one of ``MONITORS``.
        first_epoch: the number, from 0, of the first of them, where others came before.
        rate_key: the key of the configuration that says the rate, for messages.
    """

    learning_rate: float
    steps_per_epoch: int
    epochs: int
    monitor: str
    first_epoch: int = 0
    rate_key: str = RATE_KEY

    @property
    def steps(self) -> int:
        """Optimizer steps of all epochs."""
        return self.steps_per_epoch * self.epochs

    def warmup_steps(self, epochs: float) -> int:
        """Steps of a warm-up: at least one where there is any, and never the whole course."""
        return min(max(1, round(epochs * self.steps_per_epoch)), self.steps - 1) if epochs else 0


class PlateauCallback(keras.callbacks.ReduceLROnPlateau):
    """Keras's, after a warm-up, with a state that can be kept.

    An epoch in which the rate has not reached its height is not judged. Any improvement counts,
    as it does for which epoch is kept and for ``training.patience``.

    Args:
        options: factor, patience and minimum.
        course: what it is laid over.
    """

    def __init__(self, options: schema.Plateau, course: ScheduleContext) -> None:
        super().__init__(
            course.monitor,
            factor=options.factor,
            patience=options.patience,
            mode=MONITORS[course.monitor],
            min_delta=0,
            min_lr=options.minimum,
        )
        self._course = course
        self._warmup = course.warmup_steps(options.warmup_epochs)
        self._first_step = 0
        self._restored: dict[str, float] = {}

    def state(self) -> dict[str, float]:
        """What it remembers after an epoch, beside the optimizer's learning rate."""
        best = {} if self.best is None else {"best": float(self.best)}
        return {"wait": float(self.wait), **best}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state when the fit begins."""
        self._restored = dict(state)

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget, as Keras does; then remember what was restored."""
        super().on_train_begin(logs)
        if self._restored:
            self.wait = int(self._restored["wait"])
            self.best = self._restored.get("best")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note which step the epoch begins with."""
        self._first_step = (epoch - self._course.first_epoch) * self._course.steps_per_epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate of a step of the warm-up, and of the one after it."""
        step = self._first_step + batch
        if self._warmup and step <= self._warmup:
            rate = self._course.learning_rate * (step + 1) / (self._warmup + 1)
            self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch."""
        if self._first_step + self._course.steps_per_epoch > self._warmup:
            super().on_epoch_end(epoch, logs)


@dataclass(frozen=True)
class ScheduledLearningRate:
    """How the learning rate changes.

    Attributes:
        learning_rate: what the optimizer is given.
        plateau: a callback of the fit that lowers the rate; None where the step alone decides.
    """

    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    plateau: PlateauCallback | None = None

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """What the fit must tell of its steps and epochs."""
        return [] if self.plateau is None else [self.plateau]

    def state(self) -> dict[str, float]:
        """What a checkpoint of a whole epoch has to keep beside the optimizer's variables."""
        return {} if self.plateau is None else self.plateau.state()

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what ``state`` returned; before the fit."""
        if self.plateau is not None:
            self.plateau.restore(state)


def build_schedule(schedule: schema.Schedule, course: ScheduleContext) -> ScheduledLearningRate:
    """The schedule that the configuration names.

    Raises:
        UserError: it cannot be laid over this course.
    """
    built: ScheduledLearningRate = find_builder("schedule", schedule.name)(schedule, course)
    return built


@builder("schedule", "constant")
def constant(schedule: schema.Constant, course: ScheduleContext) -> ScheduledLearningRate:
    """One rate, after a warm-up where there is one."""
    if not schedule.warmup_epochs:
        return ScheduledLearningRate(course.learning_rate)
    return ScheduledLearningRate(_cosine(schedule.warmup_epochs, course, final_share=1.0))


@builder("schedule", "cosine")
def cosine(schedule: schema.Cosine, course: ScheduleContext) -> ScheduledLearningRate:
    """Half a cosine, Loshchilov and Hutter (2017) without restarts."""
    return ScheduledLearningRate(
        _cosine(schedule.warmup_epochs, course, final_share=schedule.final_share)
    )


@builder("schedule", "plateau")
def plateau(schedule: schema.Plateau, course: ScheduleContext) -> ScheduledLearningRate:
    """Lower where the monitored figure has stopped improving."""
    if schedule.minimum >= course.learning_rate:
        raise UserError(
            f"schedule.minimum={schedule.minimum:g}: expected less than {course.rate_key}="
            f"{course.learning_rate:g}, or nothing is ever lowered."
        )
    return ScheduledLearningRate(course.learning_rate, PlateauCallback(schedule, course))


def _cosine(
    warmup_epochs: float, course: ScheduleContext, *, final_share: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """``warmup`` steps up in a line, then half a cosine to a share of the rate (1: level)."""
    warmup = course.warmup_steps(warmup_epochs)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(
            course.learning_rate, course.steps, alpha=final_share
        )
    return keras.optimizers.schedules.CosineDecay(
        # Not from 0, or the first step would be none: step s has (s + 1) / (warmup + 1) of it.
        course.learning_rate / (warmup + 1),
        course.steps - warmup,
        alpha=final_share,
        warmup_target=course.learning_rate,
        warmup_steps=warmup,
    )
