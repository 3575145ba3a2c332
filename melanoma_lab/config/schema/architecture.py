"""The group ``architecture``."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
from melanoma_lab.registry import option


@dataclass
class Architecture:
    """What every architecture has."""

    name: str = MISSING


@option("architecture", "vgg5")
@dataclass
class Vgg5(Architecture):
    """The seed project's network: 3x3 convolution and max-pooling five times, one dense layer."""

    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    dense_units: int = 1024

    def __post_init__(self) -> None:
        require(
            self.filters and min(self.filters) >= 1,
            "architecture.filters",
            "a list of positive numbers",
            self.filters,
        )
        require(self.dense_units >= 1, "architecture.dense_units", "at least 1", self.dense_units)
