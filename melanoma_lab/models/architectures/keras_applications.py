"""Networks of Keras Applications as backbones: https://keras.io/api/applications."""

from __future__ import annotations

import keras

from melanoma_lab.config.schema.architecture import KerasApplication
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.architectures.head import add_classification_head
from melanoma_lab.models.pretrained.loading import BACKBONE, load_weights
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.registry import builder

BUILDERS = {
    "efficientnetv2_b0": keras.applications.EfficientNetV2B0,
    "mobilenetv3_small": keras.applications.MobileNetV3Small,
    "mobilenetv3_large": keras.applications.MobileNetV3Large,
    "convnext_tiny": keras.applications.ConvNeXtTiny,
}
#: Smallest side of the image in pixels that Keras accepts.
SMALLEST = 32


@builder("architecture", "efficientnetv2_b0")
@builder("architecture", "mobilenetv3_small")
@builder("architecture", "mobilenetv3_large")
@builder("architecture", "convnext_tiny")
def keras_application(
    architecture: KerasApplication, image_size: int, n_classes: int, regulariser: Regulariser
) -> keras.Model:
    """Build the backbone, which scales pixels itself, and a new classification head.

    Dropout layers inside the backbone are disabled, so that an arm has only the configured
    regularisation.
    """
    if image_size < SMALLEST:
        raise UserError(
            f"dataset.image_size={image_size}: architecture={architecture.name} expects at least "
            f"{SMALLEST}."
        )
    built = BUILDERS[architecture.name](
        include_top=False,
        weights=None,
        input_shape=(image_size, image_size, 3),
        pooling="avg",
        include_preprocessing=True,
    )
    backbone = keras.Model(built.input, built.output, name=BACKBONE)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    load_weights(backbone, architecture)
    return add_classification_head(backbone, n_classes, regulariser, name=architecture.name)
