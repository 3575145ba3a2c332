"""The group ``regularisation``."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
from melanoma_lab.registry import option


@dataclass
class Regularisation:
    """What every regularisation has."""

    name: str = MISSING


@option("regularisation", "none")
@dataclass
class NoRegularisation(Regularisation):
    """Nothing."""


@option("regularisation", "dropout")
@dataclass
class Dropout(Regularisation):
    """Dropout after the last ``len(rates)`` blocks of the network."""

    rates: list[float] = field(default_factory=lambda: [0.15, 0.25, 0.30])

    def __post_init__(self) -> None:
        for rate in self.rates:
            require(0 <= rate < 1, "regularisation.rates", "rates from 0 to below 1", rate)


@option("regularisation", "l2")
@dataclass
class L2(Regularisation):
    """``factor`` times the sum of squared kernel weights is added to the loss."""

    factor: float = 1e-4

    def __post_init__(self) -> None:
        require(self.factor >= 0, "regularisation.factor", "0 or more", self.factor)
