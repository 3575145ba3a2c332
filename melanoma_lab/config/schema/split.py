"""The group ``split``: how images are divided into train, val and test."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from melanoma_lab.core.errors import require, require_share
from melanoma_lab.registry import option


class OnLeakingTest(StrEnum):
    """Treatment of published test images whose group also has training images."""

    error = "error"
    drop = "drop"


@dataclass
class Split:
    """Base class of all splits."""

    name: str = MISSING
    #: Seed of the division; independent of the ``seed`` of training.
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, "split.seed", "0 or more", self.seed)


@option("split", "holdout")
@dataclass
class Holdout(Split):
    """One division into three parts, stratified by class; groups are never divided."""

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("train", "val", "test"):
            require_share(f"split.{key}", getattr(self, key))
        total = self.train + self.val + self.test
        require(
            abs(total - 1) < 1e-6,
            "split.train + split.val + split.test",
            "a sum of 1",
            f"{total:g}",
        )


@dataclass
class Undivided(Split):
    """All images are test images, as for external validation; not an option of the group."""

    name: str = "undivided"
    #: Use only the published Test.
    published: bool = False


@dataclass
class FoldSplit(Split):
    """Base class of splits with ``k`` folds, of which number ``fold`` is held out."""

    k: int = 5
    fold: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 2, "split.k", "at least 2 folds", self.k)
        require(
            0 <= self.fold < self.k, "split.fold", f"0 to split.k - 1 = {self.k - 1}", self.fold
        )


@option("split", "kfold")
@dataclass
class KFold(FoldSplit):
    """The held-out fold is the test split; ``val`` is a share of the rest."""

    val: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)


@option("split", "cross_val")
@dataclass
class CrossVal(FoldSplit):
    """The held-out fold is the val split; all folds share the test split, that of a holdout."""

    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.test", self.test)


@option("split", "predefined")
@dataclass
class Predefined(Split):
    """The published Train and Test; ``val`` is a share of Train."""

    val: float = 0.15
    leaking_test: OnLeakingTest = OnLeakingTest.error

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)
