"""The group ``regularisation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from melanoma_lab.core.errors import require
from melanoma_lab.registry import Option, option


@dataclass(frozen=True)
class RegularisationStrengths:
    """The strength of each kind of regularisation; 0 is none.

    Attributes:
        dropout: dropout rates after the network's last ``len(dropout)`` blocks.
        l2: factor of the sum of squared kernel weights that is added to the loss.
        label_smoothing: share of every label that is spread evenly over all classes.
        weight_decay: share of every kernel weight, times the learning rate, that a step subtracts.
        stochastic_depth: probability that an image skips the last residual block in training.
    """

    dropout: tuple[float, ...] = ()
    l2: float = 0.0
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    stochastic_depth: float = 0.0


@dataclass
class Regularisation(Option):
    """Base class of all kinds of regularisation."""

    #: Kind of regularisation, as in ``RegularisationStrengths`` -> the key with its strength.
    strength_keys: ClassVar[dict[str, str]] = {}

    def strengths(self) -> RegularisationStrengths:
        """Return the strengths for the network, the loss and the optimizer."""
        strengths = {kind: getattr(self, key) for kind, key in self.strength_keys.items()}
        if "dropout" in strengths:
            strengths["dropout"] = tuple(strengths["dropout"])
        return RegularisationStrengths(**strengths)


@option("regularisation", "none")
@dataclass
class NoRegularisation(Regularisation):
    """No regularisation."""


@option("regularisation", "dropout")
@dataclass
class Dropout(Regularisation):
    """Dropout after the last ``len(rates)`` blocks of the network."""

    strength_keys: ClassVar = {"dropout": "rates"}

    #: Dropout rates, the last one after the network's last block.
    rates: list[float] = field(default_factory=lambda: [0.15, 0.25, 0.30])

    def __post_init__(self) -> None:
        _require_rates(self.rates)


@option("regularisation", "l2")
@dataclass
class L2(Regularisation):
    """A penalty in the loss: ``factor`` times the sum of squared kernel weights."""

    strength_keys: ClassVar = {"l2": "factor"}

    #: Factor of the sum of squared kernel weights.
    factor: float = 1e-4

    def __post_init__(self) -> None:
        require(self.factor >= 0, "regularisation.factor", "0 or more", self.factor)


@option("regularisation", "label_smoothing")
@dataclass
class LabelSmoothing(Regularisation):
    """A share ``factor`` of every training label is spread evenly over all classes."""

    strength_keys: ClassVar = {"label_smoothing": "factor"}

    #: Share of every label that is spread evenly; the default is that of Szegedy et al. (2016).
    factor: float = 0.1

    def __post_init__(self) -> None:
        _require_below_one("regularisation.factor", self.factor)


@option("regularisation", "weight_decay")
@dataclass
class WeightDecay(Regularisation):
    """Every step reduces the kernels by ``factor`` times the learning rate, whatever the loss."""

    strength_keys: ClassVar = {"weight_decay": "factor"}

    #: Share by which every step reduces the kernels, times the learning rate. The default is usual
    #: for image networks; Keras's default of 0.004 reduces a weight by only 0.2 % in 600 steps at a
    #: learning rate of 0.001.
    factor: float = 0.05

    def __post_init__(self) -> None:
        require(self.factor >= 0, "regularisation.factor", "0 or more", self.factor)


@option("regularisation", "stochastic_depth")
@dataclass
class StochasticDepth(Regularisation):
    """In training, an image skips residual blocks at random, later blocks more often."""

    strength_keys: ClassVar = {"stochastic_depth": "rate"}

    #: Probability of skipping the last block; it increases linearly from the first block on.
    rate: float = 0.2

    def __post_init__(self) -> None:
        _require_below_one("regularisation.rate", self.rate)


@option("regularisation", "combined")
@dataclass
class CombinedRegularisation(Regularisation):
    """Several kinds at once; each key means the same as in the option of that kind alone."""

    strength_keys: ClassVar = {
        "dropout": "rates",
        "l2": "l2",
        "label_smoothing": "label_smoothing",
        "weight_decay": "weight_decay",
        "stochastic_depth": "stochastic_depth",
    }

    #: Rates of dropout.
    rates: list[float] = field(default_factory=list)
    #: Factor of the sum of squared kernel weights in the loss; 0: no penalty.
    l2: float = 0.0
    #: Share of every label that is spread evenly over all classes; 0: none.
    label_smoothing: float = 0.0
    #: Share by which every step reduces the kernels, times the learning rate; 0: none.
    weight_decay: float = 0.0
    #: Probability that the last residual block is skipped; 0: never.
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        _require_rates(self.rates)
        for key in ("l2", "weight_decay"):
            value = getattr(self, key)
            require(value >= 0, f"regularisation.{key}", "0 or more", value)
        for key in ("label_smoothing", "stochastic_depth"):
            _require_below_one(f"regularisation.{key}", getattr(self, key))
        require(
            any(
                (
                    *self.rates,
                    self.l2,
                    self.label_smoothing,
                    self.weight_decay,
                    self.stochastic_depth,
                )
            ),
            "regularisation=combined",
            "some of regularisation.rates, l2, label_smoothing, weight_decay, stochastic_depth",
            "none",
        )


def _require_rates(rates: Sequence[float]) -> None:
    for rate in rates:
        require(0 <= rate < 1, "regularisation.rates", "rates from 0 to below 1", rate)


def _require_below_one(key: str, value: float) -> None:
    require(0 <= value < 1, key, "0 to below 1", value)
