"""Which part of a network trains: everything, the head alone, or all from a block on.

A backbone is a model within the network, called ``backbone``. What is frozen never computes in
training mode as far as batch normalisation goes: Keras's takes the statistics that it has learned,
and keeps them, where ``trainable`` is false.
"""

from __future__ import annotations

import re

import keras

from melanoma_lab.config.schema.finetuning import ALL, Finetuning
from melanoma_lab.errors import UserError, nearest
from melanoma_lab.model.inputs import METADATA
from melanoma_lab.model.metadata import BRANCH, JOINED, has_metadata
from melanoma_lab.model.pretrained.loading import BACKBONE


def find_backbone(network: keras.Model, finetuning: Finetuning) -> keras.Model:
    """The backbone of a network.

    Args:
        network: from pixels to probabilities.
        finetuning: what needs it, for the message.

    Raises:
        UserError: it has none.
    """
    for layer in network.layers:
        if layer.name == BACKBONE and isinstance(layer, keras.Model):
            return layer
    raise UserError(
        f"finetuning={finetuning.name}: architecture={network.name} has no backbone to freeze (a "
        f"model within it that is called {BACKBONE!r}); expected finetuning=none, or an "
        "architecture such as efficientnet_lite0."
    )


def head_of(network: keras.Model) -> keras.Model:
    """What follows the backbone, as a model of its own that shares the network's layers.

    Args:
        network: with a backbone whose output one layer takes.

    Returns:
        From features, shape (n, d), or features and metadata, to probabilities, shape
        (n, n_classes).
    """
    names = [layer.name for layer in network.layers]
    following = network.layers[names.index(BACKBONE) + 1 :]
    after = next(layer for layer in following if layer.name not in {METADATA, BRANCH})
    if not has_metadata(network):
        return keras.Model(after.input, network.outputs, name="head")
    branch = network.get_layer(BRANCH)
    features = after.input[0] if after.name == JOINED else after.input
    # Both tensors lie within the network: beside an input of its own, Keras 3.15 loses its place.
    joining = keras.Model((features, branch.output), network.output)
    inputs = (
        keras.Input(features.shape[1:], name="features"),
        keras.Input(branch.input.shape[1:], name=METADATA),
    )
    return keras.Model(inputs, joining((inputs[0], branch(inputs[1]))), name="head")


def freeze(backbone: keras.Model) -> None:
    """Let nothing of a backbone train."""
    backbone.trainable = False


def unfreeze(backbone: keras.Model, block: str, *, batch_norm: bool) -> None:
    """Let a backbone train from a block on.

    Args:
        backbone: any state of it.
        block: as ``check_block`` allows.
        batch_norm: whether batch normalisation in that part trains too; else it stays in
            inference mode, with the scales, offsets and statistics that it has.
    """
    backbone.trainable = True
    first = _first_layer(backbone, block)
    for i, layer in enumerate(backbone.layers):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = i >= first and (batch_norm or not normalises)


def check_block(backbone: keras.Model, block: str) -> None:
    """Refuse a block that a backbone does not have.

    Raises:
        UserError: no layer's name is that, or begins with it and a separator.
    """
    if _first_layer(backbone, block) == len(backbone.layers):
        names = [layer.name for layer in backbone.layers if layer.weights]
        raise UserError(
            f"finetuning.unfreeze_from={block}: no layer or block of the backbone is called so; "
            f"expected {ALL}, or the beginning of a layer's name, from {names[0]} to {names[-1]}. "
            f"{nearest(block, [*_beginnings(names)])}"
        )


def _first_layer(backbone: keras.Model, block: str) -> int:
    """The number of a block's first layer; that of layers where there is none."""
    if block == ALL:
        return 0
    begins = re.compile(rf"{re.escape(block)}(?![A-Za-z0-9])")
    found = (i for i, layer in enumerate(backbone.layers) if begins.match(layer.name))
    return next(found, len(backbone.layers))


def _beginnings(names: list[str]) -> set[str]:
    """Every beginning of a name that ends where a word does."""
    return {name[: word.end()] for name in names for word in re.finditer(r"[A-Za-z0-9]+", name)}
