"""The group ``finetuning``: which part of a network with a backbone trains, and when."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option

#: The value of ``unfreeze_from`` that unfreezes everything.
ALL_BLOCKS = "all"


@dataclass
class Finetuning:
    """What every option has."""

    name: str = MISSING


@option("finetuning", "none")
@dataclass
class NoFinetuning(Finetuning):
    """Everything trains from the first step, batch normalisation included."""


@dataclass
class FrozenStart(Finetuning):
    """What begins with a frozen backbone: it computes what it does in inference mode."""

    #: Compute the features of every image once and keep them, where nothing changes images.
    cache_features: bool = True


@option("finetuning", "frozen")
@dataclass
class Frozen(FrozenStart):
    """Only the head trains."""


@option("finetuning", "staged")
@dataclass
class Staged(FrozenStart):
    """The head trains first, then also the backbone from a block on, at a rate of its own."""

    #: Epochs of ``training.epochs`` in which only the head trains.
    head_epochs: int = 5
    #: The block from which on the backbone trains afterwards, by its name; all: the whole of it.
    unfreeze_from: str = ALL_BLOCKS
    #: Highest rate afterwards, of head and backbone; ``optimizer.learning_rate`` is that before.
    #: The default is that of Keras's guide to transfer learning.
    learning_rate: float = 1e-5
    #: Whether the backbone's batch normalisation trains afterwards and takes the statistics of
    #: batches; false: it stays as it is throughout.
    batch_norm: bool = False

    def __post_init__(self) -> None:
        require(self.head_epochs >= 1, "finetuning.head_epochs", "at least 1", self.head_epochs)
        require(
            self.learning_rate > 0, "finetuning.learning_rate", "more than 0", self.learning_rate
        )
