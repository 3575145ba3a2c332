"""Fine-tuning: its stages, and freezing and unfreezing the backbone of a network in them.

A backbone is a nested model of the network, named ``backbone``, that takes its pixels. Frozen batch
normalisation stays in inference mode: if ``trainable`` is false, Keras uses the learned statistics
and does not update them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile

import keras

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.training import ALL_BLOCKS, Finetuning, Frozen, FrozenStart, Staged
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.input_pipeline.batches import METADATA
from melanoma_lab.models.backbones import BACKBONE
from melanoma_lab.models.extended_networks import BRANCH, JOINED, has_metadata_branch
from melanoma_lab.models.optimizers import RATE_KEY
from melanoma_lab.training.train_steps import AugmentedNetwork, FrozenBackbone


def find_backbone(network: keras.Model, finetuning: Finetuning) -> keras.Model:
    """Return the backbone of a network.

    Args:
        finetuning: configured fine-tuning, for the message of an error.

    Raises:
        UserError: the network has no backbone, or other layers process the pixels before it. A
            head on the backbone's features would ignore these layers.
    """
    backbones = [
        layer
        for layer in network.layers
        if layer.name == BACKBONE and isinstance(layer, keras.Model)
    ]
    if not backbones:
        raise UserError(
            f"finetuning={finetuning.name}: architecture={network.name} has no backbone to freeze "
            f"(a nested model named {BACKBONE!r}); expected finetuning=none, or an architecture "
            "such as efficientnet_lite0."
        )
    before = [
        layer.name
        for layer in network.layers[: network.layers.index(backbones[0])]
        if not isinstance(layer, keras.layers.InputLayer) and layer.name not in {METADATA, BRANCH}
    ]
    if before:
        raise UserError(
            f"finetuning={finetuning.name}: architecture={network.name} has layers before its "
            f"backbone ({', '.join(before)}); expected a backbone that takes the pixels and "
            "contains these layers too, or finetuning=none."
        )
    return backbones[0]


def extract_head(network: keras.Model) -> keras.Model:
    """Return the layers after the backbone as a model that shares them with the network.

    Args:
        network: model whose backbone's output goes into one layer.

    Returns:
        Model from features, shape (n, d), or features and metadata, to probabilities, shape
        (n, n_classes).
    """
    names = [layer.name for layer in network.layers]
    following = network.layers[names.index(BACKBONE) + 1 :]
    after = next(layer for layer in following if layer.name not in {METADATA, BRANCH})
    if not has_metadata_branch(network):
        return keras.Model(after.input, network.outputs, name="head")
    branch = network.get_layer(BRANCH)
    features = after.input[0] if after.name == JOINED else after.input
    # Both are inner tensors of the network: Keras 3.15 cannot combine one with an input layer.
    joining = keras.Model((features, branch.output), network.output)
    inputs = (
        keras.Input(features.shape[1:], name="features"),
        keras.Input(branch.input.shape[1:], name=METADATA),
    )
    return keras.Model(inputs, joining((inputs[0], branch(inputs[1]))), name="head")


def freeze(backbone: keras.Model) -> None:
    """Freeze all layers of a backbone."""
    backbone.trainable = False
    for layer in iterate_layers(backbone):
        layer.trainable = False  # Keras 3.15 does not do it for a Sequential


def unfreeze(backbone: keras.Model, block: str, *, batch_norm: bool) -> None:
    """Unfreeze a backbone from a block on, and freeze the layers before it.

    Args:
        block: name that ``check_block`` accepts.
        batch_norm: whether batch normalisation in that part trains too. Otherwise it stays in
            inference mode, and its scales, offsets and statistics do not change.
    """
    backbone.trainable = True
    unfrozen = _layers_from(backbone, block, batch_norm=batch_norm)
    for layer in iterate_layers(backbone):
        layer.trainable = layer in unfrozen


def check_block(backbone: keras.Model, block: str, *, batch_norm: bool) -> None:
    """Refuse a block that the backbone does not have, or from which on nothing could train.

    Args:
        backbone: backbone that was just built.
        block: name of the block's first layer, or the beginning of its name up to a separator.

    Raises:
        UserError: no layer's name is or begins with ``block``; no layer from there on has trainable
            weights; or batch normalisation shall train and there is none.
    """
    names = [layer.name for layer in iterate_layers(backbone) if layer.weights] or ["none"]
    span = f"from {names[0]} to {names[-1]}"
    after = _layers_from(backbone, block, batch_norm=True)
    if not after:
        raise UserError(
            f"finetuning.unfreeze_from={block}: no layer or block of the backbone has this name; "
            f"expected {ALL_BLOCKS}, or a layer's name or prefix, {span}. "
            f"{suggest_choice(block, [*_name_prefixes(names)])}"
        )
    if batch_norm and not any(_is_batch_norm(layer) for layer in after):
        raise UserError(
            f"finetuning.batch_norm=true: the backbone has no batch normalisation from {block} on; "
            "leave it out."
        )
    if not any(
        layer.trainable_variables for layer in _layers_from(backbone, block, batch_norm=batch_norm)
    ):
        raise UserError(
            f"finetuning.unfreeze_from={block}: the backbone has no trainable layer from there on"
            f"{'' if batch_norm else ' (finetuning.batch_norm=false)'}; expected {ALL_BLOCKS}, or "
            f"an earlier layer, {span}. To train the head alone, set finetuning=frozen."
        )


def iterate_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield a model's layers in order, with those of nested models instead of the models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from iterate_layers(layer)
        else:
            yield layer


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _layers_from(backbone: keras.Model, block: str, *, batch_norm: bool) -> list[keras.Layer]:
    """Return the layers from a block on; empty if there is no such block."""
    pattern = re.compile("" if block == ALL_BLOCKS else rf"{re.escape(block)}(?![A-Za-z0-9])")
    after = dropwhile(lambda layer: not pattern.match(layer.name), iterate_layers(backbone))
    return [layer for layer in after if batch_norm or not _is_batch_norm(layer)]


def _name_prefixes(names: list[str]) -> set[str]:
    """Return all beginnings of names that end with a whole word."""
    return {name[: word.end()] for name in names for word in re.finditer(r"[A-Za-z0-9]+", name)}


@dataclass(frozen=True)
class StagePlan:
    """Consecutive epochs in which the same part of a network trains.

    Attributes:
        epochs: numbers of the epochs, from 0.
        learning_rate: highest learning rate of the stage, the same for all weights that train.
        head_only: whether the backbone is frozen.
        rate_key: configuration key of the learning rate.
    """

    epochs: range
    learning_rate: float
    head_only: bool
    rate_key: str = RATE_KEY


def plan_stages(config: Config) -> list[StagePlan]:
    """Return the stages of a configured training, in order."""
    finetuning, epochs = config.finetuning, config.training.epochs
    rate = config.optimizer.learning_rate
    if isinstance(finetuning, Staged):
        first = finetuning.head_epochs
        return [
            StagePlan(range(first), rate, head_only=True),
            StagePlan(
                range(first, epochs),
                finetuning.learning_rate,
                head_only=False,
                rate_key="finetuning.learning_rate",
            ),
        ]
    return [StagePlan(range(epochs), rate, head_only=isinstance(finetuning, Frozen))]


def check_finetuning(network: keras.Model, finetuning: Finetuning) -> None:
    """Refuse a fine-tuning that a network does not support.

    Raises:
        UserError: the network has no backbone, or the block to unfreeze from has nothing to train.
    """
    if isinstance(finetuning, FrozenStart):
        backbone = find_backbone(network, finetuning)
        if isinstance(finetuning, Staged):
            check_block(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)


def make_model_factory(
    plan: StagePlan,
    network: keras.Model,
    augmentation: list[keras.Layer],
    finetuning: Finetuning,
    *,
    precomputed: bool,
) -> Callable[[], keras.Model]:
    """Return a function that builds the model of one stage and freezes the rest.

    Args:
        precomputed: whether the batches of a stage with a frozen backbone hold features instead of
            pixels.
    """

    def build_network() -> keras.Model:
        if isinstance(finetuning, Staged):
            backbone = find_backbone(network, finetuning)
            unfreeze(backbone, finetuning.unfreeze_from, batch_norm=finetuning.batch_norm)
        return AugmentedNetwork(network, augmentation)

    def build_head() -> keras.Model:
        backbone = find_backbone(network, finetuning)
        freeze(backbone)
        return FrozenBackbone(
            extract_head(network), backbone, augmentation, precomputed=precomputed
        )

    return build_head if plan.head_only else build_network
