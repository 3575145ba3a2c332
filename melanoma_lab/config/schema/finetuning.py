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
    """Base class of all options."""

    name: str = MISSING


@option("finetuning", "none")
@dataclass
class NoFinetuning(Finetuning):
    """Everything trains from the first step, including batch normalisation."""


@dataclass
class FrozenStart(Finetuning):
    """Base class of options that start with a frozen backbone, which runs in inference mode."""

    #: Compute the features of every image only once, if no augmentation changes the images.
    cache_features: bool = True


@option("finetuning", "frozen")
@dataclass
class Frozen(FrozenStart):
    """Only the head trains."""


@option("finetuning", "staged")
@dataclass
class Staged(FrozenStart):
    """The head trains first, then also the last blocks of the backbone, at another rate."""

    #: Number of epochs, of the ``training.epochs``, in which only the head trains.
    head_epochs: int = 5
    #: Name of the first block of the backbone that trains afterwards; all: the whole backbone.
    unfreeze_from: str = ALL_BLOCKS
    #: Highest learning rate afterwards, of head and backbone; ``optimizer.learning_rate`` is the
    #: one before. The default is that of Keras's guide to transfer learning.
    learning_rate: float = 1e-5
    #: Whether the backbone's batch normalisation trains afterwards and uses the statistics of
    #: batches; false: it never changes.
    batch_norm: bool = False

    def __post_init__(self) -> None:
        require(self.head_epochs >= 1, "finetuning.head_epochs", "at least 1", self.head_epochs)
        require(
            self.learning_rate > 0, "finetuning.learning_rate", "more than 0", self.learning_rate
        )
