"""The group ``optimizer``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
from melanoma_lab.registry import option


@dataclass
class Optimizer:
    """What every optimizer has."""

    name: str = MISSING
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate
        )


@option("optimizer", "adam")
@dataclass
class Adam(Optimizer):
    """Kingma and Ba (2015), with Keras's defaults."""


@option("optimizer", "sgd")
@dataclass
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    learning_rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "optimizer.momentum", "0 to below 1", self.momentum)
