"""The mean of the members of an ensemble: of their predictions tables, and of their networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.evaluation.predictions import PROBABILITY_PREFIX, Predictions


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of members whose images, groups, labels and classes are the same.

    The result is in the order of the images' ids, with the splits of ``assign_splits``.

    Raises:
        UserError: as for ``assign_splits``.
    """
    tables = [member.table.sort_values("image_id", ignore_index=True) for member in members]
    columns = [f"{PROBABILITY_PREFIX}{slug}" for slug in members[0].slugs]
    probabilities = np.stack([table[columns].to_numpy(np.float64) for table in tables])
    splits = assign_splits([table["split"].to_numpy(str) for table in tables])
    result = tables[0].assign(split=splits)
    result[columns] = probabilities.mean(axis=0).astype(np.float32)
    return Predictions(result)


def assign_splits(splits: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Assign each image its split for the ensemble: ``train``, ``val`` or ``test``.

    A training image of any member is a training image of the ensemble. The ensemble is tested only
    on images that no member has used in any way. The images of a group are in one split of every
    member, and so they are here.

    ``splits`` has an array for each member, str, shape (n,), with the images in the same order.

    Raises:
        UserError: members were tested on different images, so that few or no images would be left
            that no member has used, and not those by which the members were evaluated. Or every
            image has trained some member.
    """
    stacked = np.stack(splits)
    tested = stacked == TEST
    if (tested != tested[0]).any():
        n_all, n_any = int(tested.all(axis=0).sum()), int(tested.any(axis=0).sum())
        raise UserError(
            f"These runs were not tested on the same images: of {n_any} that one or another was "
            f"tested on, {n_all} are test images of all, and the others were used to train or "
            "choose a member. This is the case with the folds of split=kfold: every image has "
            "been seen by some member. Train members with other seeds on one split (the same "
            "split.seed and split.fold), or on folds of split=cross_val, which have one test split."
        )
    assigned = np.where((stacked == TRAIN).any(axis=0), TRAIN, VAL)
    assigned = np.where(tested[0], TEST, assigned)
    if (assigned == TRAIN).all():
        raise UserError(
            "Every image was used to train one of these runs, so no image is left to evaluate "
            "them together. This is the case with folds of split=cross_val and "
            "evaluation.test=false. Train members with evaluation.test=true, or with other seeds "
            "on one fold."
        )
    return assigned


def build_mean_network(networks: Sequence[Any]) -> Any:
    """Build a Keras network that returns the mean of the outputs of other networks.

    The networks have the same inputs, such as pixels, shape (n, s, s, 3), and return probabilities,
    shape (n, n_classes). The new network has these inputs and outputs, and shares their weights.
    """
    import keras

    def copy_inputs(inputs: Any) -> Any:
        if isinstance(inputs, dict):
            return {
                name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
                for name, tensor in inputs.items()
            }
        return keras.Input(inputs.shape[1:], name="pixels")

    inputs = copy_inputs(networks[0].input)
    outputs = []
    for i, network in enumerate(networks):
        # Networks of one arm have equal names, but names of layers must differ.
        own = copy_inputs(network.input)
        outputs.append(keras.Model(own, network(own), name=f"member_{i}")(inputs))
    mean = keras.layers.Average(name="ensemble", dtype="float32")(outputs)
    return keras.Model(inputs, mean, name="ensemble")
