"""The group ``optimizer``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Optimizer:
    """Base class of all optimizers."""

    name: str = MISSING
    learning_rate: float = 1e-3
    #: Share of an exponential moving average of the weights that every step keeps. The averaged
    #: weights are validated and saved, and do not affect the gradients; null: no average.
    ema: float | None = None

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate
        )
        require(
            self.ema is None or 0 < self.ema < 1,
            "optimizer.ema",
            "between 0 and 1, or null",
            self.ema,
        )


@option("optimizer", "adam")
@dataclass
class Adam(Optimizer):
    """Kingma and Ba (2015), with Keras's defaults."""


@option("optimizer", "adamw")
@dataclass
class AdamW(Optimizer):
    """Adam with decoupled weight decay, Loshchilov and Hutter (2019).

    The same as ``optimizer=adam regularisation=weight_decay``.
    """

    #: Every step reduces the kernels by this share, times the learning rate; the default is that
    #: of ``regularisation=weight_decay``.
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.weight_decay >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)


@option("optimizer", "rmsprop")
@dataclass
class RmsProp(Optimizer):
    """Gradients divided by a running mean of their magnitude (Tieleman and Hinton, 2012)."""

    #: Share of the running mean that every step keeps.
    rho: float = 0.9
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.rho < 1, "optimizer.rho", "0 to below 1", self.rho)
        require(0 <= self.momentum < 1, "optimizer.momentum", "0 to below 1", self.momentum)


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
