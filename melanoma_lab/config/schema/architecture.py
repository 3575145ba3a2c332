"""The group ``architecture``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Architecture:
    """What every architecture has."""

    #: Whether it has depthwise convolutions.
    depthwise: ClassVar[bool] = False

    name: str = MISSING


@option("architecture", "vgg5")
@dataclass
class Vgg5(Architecture):
    """The course project's network: 3x3 convolution and max-pooling five times, one dense layer."""

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


@option("architecture", "compact_cnn")
@dataclass
class CompactCnn(Architecture):
    """A small residual network that shrinks the picture early: fast on a processor."""

    #: Channels of the first convolution, at half the picture's side.
    stem: int = 16
    #: Channels of each stage; every stage halves the picture's side.
    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    #: Residual blocks of each stage.
    blocks: list[int] = field(default_factory=lambda: [1, 2, 2, 2])

    def __post_init__(self) -> None:
        require(self.stem >= 1, "architecture.stem", "at least 1", self.stem)
        require(
            self.filters and min(self.filters) >= 2,
            "architecture.filters",
            "a list of numbers of 2 and more",
            self.filters,
        )
        require(
            len(self.blocks) == len(self.filters) and min(self.blocks) >= 0,
            "architecture.blocks",
            f"a number of 0 and more for each of the {len(self.filters)} architecture.filters",
            self.blocks,
        )
