"""The group ``schedule``: how the learning rate changes from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Schedule:
    """What every schedule has."""

    name: str = MISSING
    #: Epochs, or a part of one, over which the learning rate rises in equal steps to
    #: ``optimizer.learning_rate``; 0: it starts there.
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup_epochs", "0 or more", self.warmup_epochs)


@option("schedule", "constant")
@dataclass
class Constant(Schedule):
    """The same learning rate from the warm-up's end to the last step."""


@option("schedule", "cosine")
@dataclass
class Cosine(Schedule):
    """Half a cosine from the warm-up's end down to a share of the learning rate."""

    #: What is left of ``optimizer.learning_rate`` after the last step.
    final_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.final_share < 1, "schedule.final_share", "0 to below 1", self.final_share)


@option("schedule", "plateau")
@dataclass
class Plateau(Schedule):
    """The learning rate is lowered where ``training.monitor`` has stopped improving."""

    #: The learning rate is multiplied by it.
    factor: float = 0.5
    #: Epochs without improvement after which that happens.
    patience: int = 5
    #: Learning rate that is not gone below.
    minimum: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.factor < 1, "schedule.factor", "between 0 and 1", self.factor)
        require(self.patience >= 1, "schedule.patience", "at least 1", self.patience)
        require(self.minimum >= 0, "schedule.minimum", "0 or more", self.minimum)
