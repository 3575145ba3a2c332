"""The group ``loss``: what the optimizer lowers."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Loss:
    """What every loss has."""

    name: str = MISSING


@option("loss", "cross_entropy")
@dataclass
class CrossEntropy(Loss):
    """The logarithm of the probability of what the image shows."""


@option("loss", "focal")
@dataclass
class Focal(Loss):
    """Cross-entropy in which images count the less, the surer the network is of them."""

    #: 0 is cross-entropy; 2 is what Lin et al. (2017) recommend.
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(self.gamma >= 0, "loss.gamma", "0 or more", self.gamma)


@option("loss", "logit_adjusted")
@dataclass
class LogitAdjusted(Loss):
    """Cross-entropy of logits that are raised by how frequent their class is in training.

    The network need not learn the frequencies, so what it answers is not biased towards frequent
    classes.
    """

    #: 0 is cross-entropy; 1 aims at the balanced error (Menon et al., 2021).
    tau: float = 1.0

    def __post_init__(self) -> None:
        require(self.tau >= 0, "loss.tau", "0 or more", self.tau)
