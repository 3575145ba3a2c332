"""The group ``split``: which images train, which choose, which judge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from melanoma_lab.core.errors import require, require_share
from melanoma_lab.registry import option


class OnLeakingTest(StrEnum):
    """What happens to published test images whose group has training images."""

    error = "error"
    drop = "drop"


@dataclass
class Split:
    """What every split has."""

    name: str = MISSING
    #: Which image goes where; independent of the training's ``seed``.
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, "split.seed", "0 or more", self.seed)


@option("split", "holdout")
@dataclass
class Holdout(Split):
    """One division into three parts, stratified by class, whole groups at a time."""

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
    """Every image is for testing, as of a dataset that nothing is trained on; no option."""

    name: str = "undivided"
    #: The published Test alone.
    published: bool = False


@dataclass
class FoldSplit(Split):
    """What rotates: fold number ``fold`` of ``k`` is set aside, the others are not."""

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
    """A fold is the test split; ``val`` is a share of the rest."""

    val: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)


@option("split", "cross_val")
@dataclass
class CrossVal(FoldSplit):
    """A fold is the val split; the test split is the same for all of them, that of a holdout."""

    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.test", self.test)


@option("split", "predefined")
@dataclass
class Predefined(Split):
    """The published Train/Test; ``val`` is a share of Train."""

    val: float = 0.15
    leaking_test: OnLeakingTest = OnLeakingTest.error

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)
