"""The group ``balancing``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Balancing:
    """What every balancing has."""

    name: str = MISSING


@option("balancing", "none")
@dataclass
class NoBalancing(Balancing):
    """The training images as they are."""


@option("balancing", "class_weight")
@dataclass
class ClassWeight(Balancing):
    """Every class weighs the same in the loss."""


@option("balancing", "effective_number")
@dataclass
class EffectiveNumber(Balancing):
    """Weights in the loss between ``none`` and ``class_weight``, Cui et al. (2019).

    The more images a class has already, the less another one tells.
    """

    #: 0 is ``none``; towards 1 it becomes ``class_weight``. A class's images beyond some
    #: 1 / (1 - beta) hardly count: 1,000 at 0.999.
    beta: float = 0.999

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "balancing.beta", "0 to below 1", self.beta)


@option("balancing", "oversample")
@dataclass
class Oversample(Balancing):
    """Images of smaller classes are repeated up to the size of the largest."""


@option("balancing", "undersample")
@dataclass
class Undersample(Balancing):
    """Images of larger classes are left out, at random, down to the size of the smallest."""

    #: Images that a class keeps at most; null: as many as the smallest has.
    per_class: int | None = None

    def __post_init__(self) -> None:
        require(
            self.per_class is None or self.per_class >= 1,
            "balancing.per_class",
            "at least 1, or null",
            self.per_class,
        )


@option("balancing", "augmentor")
@dataclass
class AugmentorBalancing(Balancing):
    """Every class to exactly ``per_class`` images; Augmentor's operations make the copies."""

    per_class: int = 500
    #: Method of ``Augmentor.Pipeline`` -> its arguments, one mapping an operation.
    operations: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.per_class >= 1, "balancing.per_class", "at least 1", self.per_class)
