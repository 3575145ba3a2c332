"""The mean of several predictions tables, and what an image is to runs of several splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.evaluation.predictions import PROBABILITY_PREFIX, Predictions


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Return what members answer on average: the mean of their probabilities.

    Args:
        members: predictions of the same images, groups, labels and classes in one order.

    Returns:
        The ensemble's predictions; each image has the split that ``assign_splits`` says.

    Raises:
        UserError: as ``assign_splits``.
    """
    tables = [member.table for member in members]
    columns = [f"{PROBABILITY_PREFIX}{slug}" for slug in members[0].slugs]
    answers = np.stack([table[columns].to_numpy(np.float64) for table in tables])
    splits = assign_splits([table["split"].to_numpy(str) for table in tables])
    result = tables[0].assign(split=splits)
    result[columns] = answers.mean(axis=0).astype(np.float32)
    return Predictions(result)


def assign_splits(splits: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """What each image is to an ensemble, given what it was to every member.

    What any member has been fitted to, the ensemble has been fitted to; it is judged by what no
    member has used in any way. Images of one group are in one split of every member and so are
    here.

    Args:
        splits: of each member, str, shape (n,); in one order of images.

    Returns:
        str, shape (n,): ``train`` where it is in any, ``test`` where it is in all, else ``val``.

    Raises:
        UserError: members were tested on different images. What is left that none has seen would
            be few or none, and not what the members were judged by. Or every image has trained one
            or another of them.
    """
    stacked = np.stack(splits)
    tested = stacked == TEST
    if (tested != tested[0]).any():
        of_all, of_some = int(tested.all(axis=0).sum()), int(tested.any(axis=0).sum())
        raise UserError(
            f"These runs were not tested on the same images: of {of_some} that one or another was "
            f"tested on, {of_all} are test images of all, and the rest have trained or chosen some "
            "member. So it is with the folds of split=kfold: no image is left that no member has "
            "seen. Train members with other seeds on one split (the same split.seed and "
            "split.fold), or on folds of split=cross_val, which have one test split."
        )
    role = np.where((stacked == TRAIN).any(axis=0), TRAIN, VAL)
    role = np.where(tested[0], TEST, role)
    if (role == TRAIN).all():
        raise UserError(
            "Every image has trained one or another of these runs, so that none is left to judge "
            "them together by: so it is with folds of split=cross_val and evaluation.test=false. "
            "Train members with evaluation.test=true, or with other seeds on one fold."
        )
    return role
