"""The group ``architecture``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Architecture:
    """Base class of all architectures."""

    #: Whether the network has depthwise convolutions.
    depthwise: ClassVar[bool] = False

    name: str = MISSING


@option("architecture", "vgg5")
@dataclass
class Vgg5(Architecture):
    """The course project's network: five 3x3 convolutions with max-pooling, one dense layer."""

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
    """A small residual network that reduces the image size early: fast on a CPU."""

    #: Channels of the first convolution, which halves the image size.
    stem: int = 16
    #: Channels of each stage; every stage halves the image size.
    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    #: Number of residual blocks in each stage.
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
