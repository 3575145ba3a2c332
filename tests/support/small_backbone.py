"""A network with a backbone that is small, and has all that a frozen one must not do."""

import keras
from keras import layers

from melanoma_lab.models.backbones import add_classification_head
from melanoma_lab.registry import builder

#: What its last layer is called.
LAST = "probabilities"


@builder("architecture", "on_a_backbone")
def on_a_backbone(options, image_size, n_classes, regulariser):
    """Two blocks with all that a frozen backbone must not do: noise, and statistics of batches."""
    pixels = x = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 255)(x)
    for block in (1, 2):
        x = layers.Conv2D(
            *(4, 3, 2),
            use_bias=False,
            kernel_regularizer=regulariser.kernel_penalty(),
            name=f"block{block}_conv",
        )(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.ReLU(name=f"block{block}_relu")(x)
        x = layers.Dropout(0.5, seed=block, name=f"block{block}_drop")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    backbone = keras.Model(pixels, x, name="backbone")
    return add_classification_head(backbone, n_classes, regulariser, name="on_a_backbone")


def weights_of(network):
    """Every layer's weights by its name."""
    backbone = network.get_layer("backbone").layers
    return {layer.name: layer.get_weights() for layer in [*backbone, *network.layers]}
