"""The group ``loss``: the function that the optimizer minimises."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option


@dataclass
class Loss:
    """Base class of all losses."""

    name: str = MISSING


@option("loss", "cross_entropy")
@dataclass
class CrossEntropy(Loss):
    """The negative logarithm of the probability of the true class."""


@option("loss", "focal")
@dataclass
class Focal(Loss):
    """Cross-entropy that gives less weight to images that the network classifies well."""

    #: 0 is cross-entropy; Lin et al. (2017) recommend 2.
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(self.gamma >= 0, "loss.gamma", "0 or more", self.gamma)


@option("loss", "logit_adjusted")
@dataclass
class LogitAdjusted(Loss):
    """Cross-entropy of logits to which the log frequency of their class in training is added.

    The network need not learn these frequencies, so that its predictions are not biased towards
    frequent classes.
    """

    #: 0 is cross-entropy; 1 aims at the balanced error (Menon et al., 2021).
    tau: float = 1.0

    def __post_init__(self) -> None:
        require(self.tau >= 0, "loss.tau", "0 or more", self.tau)
