"""The group ``augmentation``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
from melanoma_lab.registry import option


@dataclass
class Augmentation:
    """What every augmentation has."""

    name: str = MISSING


@option("augmentation", "none")
@dataclass
class NoAugmentation(Augmentation):
    """Training batches as they are."""


@option("augmentation", "flip_rotate_zoom")
@dataclass
class FlipRotateZoom(Augmentation):
    """The seed project's: flips both ways, rotation and zoom."""

    #: Share of a full turn, both ways: 0.2 is up to 72 degrees.
    rotation: float = 0.2
    #: Share of the height and width, in and out.
    zoom: float = 0.2

    def __post_init__(self) -> None:
        for key in ("rotation", "zoom"):
            value = getattr(self, key)
            require(0 <= value < 1, f"augmentation.{key}", "0 to below 1", value)
