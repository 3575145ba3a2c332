"""Which part of a network trains: everything, the head alone, or all from a block on.

A backbone is a model within the network, called ``backbone``, that takes its pixels. What is
frozen never computes in training mode as far as batch normalisation goes: Keras's takes the
statistics that it has learned, and keeps them, where ``trainable`` is false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import dropwhile

import keras

from melanoma_lab.config.schema.finetuning import ALL_BLOCKS, Finetuning
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.input_pipeline.model_inputs import METADATA
from melanoma_lab.models.metadata_branch import BRANCH, JOINED, has_metadata_branch
from melanoma_lab.models.pretrained.loading import BACKBONE


def find_backbone(network: keras.Model, finetuning: Finetuning) -> keras.Model:
    """The backbone of a network.

    Args:
        network: from pixels to probabilities.
        finetuning: what needs it, for the message.

    Raises:
        UserError: it has none, or one that other layers come before.
    """
    before: list[keras.Layer] = []
    for layer in network.layers:
        if layer.name == BACKBONE and isinstance(layer, keras.Model):
            _refuse_layers_before(before, network, finetuning)
            return layer
        before.append(layer)
    raise UserError(
        f"finetuning={finetuning.name}: architecture={network.name} has no backbone to freeze (a "
        f"model within it that is called {BACKBONE!r}); expected finetuning=none, or an "
        "architecture such as efficientnet_lite0."
    )


def _refuse_layers_before(
    before: list[keras.Layer], network: keras.Model, finetuning: Finetuning
) -> None:
    """Refuse layers that a head on the backbone's features would be trained without."""
    names = [
        layer.name
        for layer in before
        if not isinstance(layer, keras.layers.InputLayer) and layer.name not in {METADATA, BRANCH}
    ]
    if names:
        raise UserError(
            f"finetuning={finetuning.name}: architecture={network.name} has layers before its "
            f"backbone ({', '.join(names)}); expected a backbone that takes the pixels and holds "
            "them too, or finetuning=none."
        )


def extract_head(network: keras.Model) -> keras.Model:
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
    if not has_metadata_branch(network):
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
    for layer in _layers(backbone):
        layer.trainable = False  # of a Sequential Keras 3.15 leaves them as they are


def unfreeze(backbone: keras.Model, block: str, *, batch_norm: bool) -> None:
    """Let a backbone train from a block on.

    Args:
        backbone: any state of it.
        block: as ``check_block`` allows.
        batch_norm: whether batch normalisation in that part trains too; else it stays in
            inference mode, with the scales, offsets and statistics that it has.
    """
    backbone.trainable = True
    joining = _from(backbone, block, batch_norm=batch_norm)
    for layer in _layers(backbone):
        layer.trainable = layer in joining


def check_block(backbone: keras.Model, block: str, *, batch_norm: bool) -> None:
    """Refuse a block that a backbone does not have, and what would let nothing train.

    Args:
        backbone: as it was built.
        block: its first layer's name, or the beginning of that.
        batch_norm: as ``unfreeze`` takes it.

    Raises:
        UserError: no layer's name is that, or begins with it and a separator; nothing trains from
            there on; or batch normalisation shall, of which there is none.
    """
    names = [layer.name for layer in _layers(backbone) if layer.weights] or ["none"]
    span = f"from {names[0]} to {names[-1]}"
    after = _from(backbone, block, batch_norm=True)
    if not after:
        raise UserError(
            f"finetuning.unfreeze_from={block}: no layer or block of the backbone is called so; "
            f"expected {ALL_BLOCKS}, or the beginning of a layer's name, {span}. "
            f"{suggest_choice(block, [*_beginnings(names)])}"
        )
    if batch_norm and not any(_normalises(layer) for layer in after):
        raise UserError(
            f"finetuning.batch_norm=true: the backbone has no batch normalisation from {block} on; "
            "leave it out."
        )
    if not any(
        layer.trainable_variables for layer in _from(backbone, block, batch_norm=batch_norm)
    ):
        raise UserError(
            f"finetuning.unfreeze_from={block}: nothing of the backbone trains from there on"
            f"{'' if batch_norm else ' (finetuning.batch_norm=false)'}; expected {ALL_BLOCKS}, or "
            f"an earlier layer, {span}. To train the head alone, set finetuning=frozen."
        )


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """A model's layers, those of models within it in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _normalises(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _from(backbone: keras.Model, block: str, *, batch_norm: bool) -> list[keras.Layer]:
    """The layers from a block on, with batch normalisation or without; none: no such block."""
    begins = re.compile("" if block == ALL_BLOCKS else rf"{re.escape(block)}(?![A-Za-z0-9])")
    after = dropwhile(lambda layer: not begins.match(layer.name), _layers(backbone))
    return [layer for layer in after if batch_norm or not _normalises(layer)]


def _beginnings(names: list[str]) -> set[str]:
    """Every beginning of a name that ends where a word does."""
    return {name[: word.end()] for name in names for word in re.finditer(r"[A-Za-z0-9]+", name)}
