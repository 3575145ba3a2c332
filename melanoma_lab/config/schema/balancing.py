"""The group ``balancing``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
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


@option("balancing", "oversample")
@dataclass
class Oversample(Balancing):
    """Images of smaller classes are repeated up to the size of the largest."""


@option("balancing", "augmentor")
@dataclass
class AugmentorBalancing(Balancing):
    """Every class to exactly ``per_class`` images; Augmentor's operations make the copies."""

    per_class: int = 500
    #: Method of ``Augmentor.Pipeline`` -> its arguments, one mapping an operation.
    operations: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.per_class >= 1, "balancing.per_class", "at least 1", self.per_class)
