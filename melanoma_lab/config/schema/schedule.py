"""The group ``schedule``: how the learning rate changes from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Schedule:
    """Base class of all schedules."""

    name: str = MISSING
    #: Number of epochs, or a fraction of one, over which the learning rate rises linearly to
    #: ``optimizer.learning_rate``; 0: no warm-up.
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup_epochs", "0 or more", self.warmup_epochs)


@option("schedule", "constant")
@dataclass
class Constant(Schedule):
    """The same learning rate from the end of the warm-up to the last step."""


@option("schedule", "cosine")
@dataclass
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up down to a share of the learning rate."""

    #: Share of ``optimizer.learning_rate`` that is left after the last step.
    final_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.final_share < 1, "schedule.final_share", "0 to below 1", self.final_share)


@option("schedule", "plateau")
@dataclass
class Plateau(Schedule):
    """The learning rate is lowered each time that ``training.monitor`` stops improving."""

    #: The learning rate is multiplied by this factor.
    factor: float = 0.5
    #: Number of epochs without improvement before it is lowered.
    patience: int = 5
    #: Lowest learning rate.
    minimum: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.factor < 1, "schedule.factor", "between 0 and 1", self.factor)
        require(self.patience >= 1, "schedule.patience", "at least 1", self.patience)
        require(self.minimum >= 0, "schedule.minimum", "0 or more", self.minimum)
