"""Options of the group ``architecture`` that are no networks: what every study is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.core.errors import UserError, require
from melanoma_lab.registry import option

if TYPE_CHECKING:
    from melanoma_lab.config.schema import Config

#: Groups that change what a network is trained on or how -> the options that mean something without
#: one. ``optimizer`` and ``training`` are not among them: every arm of a study shares them, and a
#: trivial arm says that it takes no steps.
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
    """What is fitted in one go and never sees the shape of a lesion: for scale."""

    #: Where it differs from MEANINGFUL.
    allowed_options: ClassVar[dict[str, tuple[str, ...]]] = {}


@option("architecture", "majority")
@dataclass
class Majority(TrivialArchitecture):
    """The class frequencies of the training split, whatever the image."""


@option("architecture", "colour_histogram")
@dataclass
class ColourHistogram(TrivialArchitecture):
    """Logistic regression on how many pixels have which colour, wherever they are."""

    #: Red, green and blue are each cut into so many equal parts; every combination is a colour.
    bins: int = 8
    #: Inverse of the L2 penalty's strength, scikit-learn's ``C``; was best on isic9_verified's val.
    c: float = 0.01

    def __post_init__(self) -> None:
        require(1 <= self.bins <= 16, "architecture.bins", "1 to 16", self.bins)
        require(self.c > 0, "architecture.c", "more than 0", self.c)


@option("architecture", "source_only")
@dataclass
class SourceOnly(TrivialArchitecture):
    """The class frequencies of the training images of the same source."""

    #: So many images with the frequencies of the whole training split are added to each source.
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        require(self.smoothing > 0, "architecture.smoothing", "more than 0", self.smoothing)


@option("architecture", "metadata_only")
@dataclass
class MetadataOnly(TrivialArchitecture):
    """Logistic regression on what ``metadata`` says of the patient, encoded as for a network."""

    allowed_options: ClassVar[dict[str, tuple[str, ...]]] = {"metadata": ("patient",)}

    #: Inverse of the L2 penalty's strength, scikit-learn's ``C``.
    c: float = 1.0

    def __post_init__(self) -> None:
        require(self.c > 0, "architecture.c", "more than 0", self.c)


def check_network_options(config: Config, architecture: TrivialArchitecture) -> None:
    """Refuse options that a trivial arm would silently ignore.

    Raises:
        UserError: naming the option and what would be right.
    """
    for group, meaningful in (ALLOWED_OPTIONS | architecture.allowed_options).items():
        chosen = getattr(config, group).name
        if chosen not in meaningful:
            needed = group in architecture.allowed_options
            fault = "looks at nothing else" if needed else "would ignore it"
            right = " or ".join(f"{group}={name}" for name in meaningful)
            raise UserError(
                f"{group}={chosen}: architecture={architecture.name} is no network and {fault}; "
                f"expected {right}."
            )
