"""Options of the group ``architecture`` without a network, as a comparison for every study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.core.errors import UserError, require
from melanoma_lab.registry import option

if TYPE_CHECKING:
    from melanoma_lab.config.schema import Config

#: Groups that change how a network is trained -> the options that are allowed without a network.
#: ``optimizer`` and ``training`` are not among them: every arm of a study shares them, and a
#: trivial classifier reports that it does not use them.
ALLOWED_OPTIONS = {
    "regularisation": ("none",),
    "balancing": ("none", "class_weight", "effective_number"),
    "augmentation": ("none",),
    "loss": ("cross_entropy",),
    "finetuning": ("none",),
    "metadata": ("none",),
}


@dataclass
class TrivialArchitecture(Architecture):
    """Base class of classifiers without a network, which never see the shape of a lesion."""

    #: Groups whose allowed options differ from ``ALLOWED_OPTIONS``.
    allowed_options: ClassVar[dict[str, tuple[str, ...]]] = {}


@option("architecture", "majority")
@dataclass
class Majority(TrivialArchitecture):
    """The class frequencies of the training split, the same for every image."""


@option("architecture", "colour_histogram")
@dataclass
class ColourHistogram(TrivialArchitecture):
    """Logistic regression on the colour histogram of an image."""

    #: Number of equal bins for each of red, green and blue; every combination is a colour.
    bins: int = 8
    #: Inverse strength of the L2 penalty, scikit-learn's ``C``; the default was the best on
    #: isic9_verified's val.
    c: float = 0.01

    def __post_init__(self) -> None:
        require(1 <= self.bins <= 16, "architecture.bins", "1 to 16", self.bins)
        require(self.c > 0, "architecture.c", "more than 0", self.c)


@option("architecture", "source_only")
@dataclass
class SourceOnly(TrivialArchitecture):
    """The class frequencies of the training images of the same source."""

    #: Number of images, with the frequencies of the whole training split, added to each source.
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        require(self.smoothing > 0, "architecture.smoothing", "more than 0", self.smoothing)


@option("architecture", "metadata_only")
@dataclass
class MetadataOnly(TrivialArchitecture):
    """Logistic regression on patient metadata, encoded in the same way as for a network."""

    allowed_options: ClassVar[dict[str, tuple[str, ...]]] = {"metadata": ("patient",)}

    #: Inverse strength of the L2 penalty, scikit-learn's ``C``.
    c: float = 1.0

    def __post_init__(self) -> None:
        require(self.c > 0, "architecture.c", "more than 0", self.c)


def check_network_options(config: Config, architecture: TrivialArchitecture) -> None:
    """Refuse options that a trivial classifier would ignore.

    Raises:
        UserError: such an option is chosen; the message names it and the allowed ones.
    """
    for group, allowed in (ALLOWED_OPTIONS | architecture.allowed_options).items():
        chosen = getattr(config, group).name
        if chosen not in allowed:
            needed = group in architecture.allowed_options
            fault = "uses nothing else" if needed else "ignores it"
            expected = " or ".join(f"{group}={name}" for name in allowed)
            raise UserError(
                f"{group}={chosen}: architecture={architecture.name} is a trivial classifier and "
                f"{fault}; expected {expected}."
            )
