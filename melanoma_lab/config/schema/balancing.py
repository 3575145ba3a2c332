"""The group ``balancing``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Balancing:
    """Base class of all balancing strategies."""

    name: str = MISSING


@option("balancing", "none")
@dataclass
class NoBalancing(Balancing):
    """No balancing: the training images as they are."""


@option("balancing", "class_weight")
@dataclass
class ClassWeight(Balancing):
    """Weights in the loss that give every class the same total weight."""


@option("balancing", "effective_number")
@dataclass
class EffectiveNumber(Balancing):
    """Weights in the loss between ``none`` and ``class_weight``, Cui et al. (2019).

    The more images a class has, the less information an additional one gives.
    """

    #: 0 equals ``none``; values towards 1 approach ``class_weight``. A class's images beyond about
    #: 1 / (1 - beta) hardly count: beyond 1,000 for 0.999.
    beta: float = 0.999

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "balancing.beta", "0 to below 1", self.beta)


@option("balancing", "oversample")
@dataclass
class Oversample(Balancing):
    """Images of smaller classes are repeated up to the size of the largest class."""


@option("balancing", "undersample")
@dataclass
class Undersample(Balancing):
    """Random images of larger classes are left out down to the size of the smallest class."""

    #: Largest number of images that a class keeps; null: the size of the smallest class.
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
    """Exactly ``per_class`` images of every class; Augmentor's operations make the copies."""

    per_class: int = 500
    #: A mapping for each operation: method of ``Augmentor.Pipeline`` -> its arguments.
    operations: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.per_class >= 1, "balancing.per_class", "at least 1", self.per_class)
