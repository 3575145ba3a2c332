"""The choice of a run's most confident decisions and mistakes, from its predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lab.evaluation.decision_rule import Temperature
from melanoma_lab.evaluation.predictions import SplitPredictions

#: The most mistakes to show, and the most missed images of the positive class among them.
N_MISTAKES, N_MISSED = 40, 20
#: The most classes and pairs of classes to show.
N_CLASSES, N_PAIRS = 12, 20


def tabulate_decisions(split: SplitPredictions, temperature: Temperature) -> pd.DataFrame:
    """Tabulate the predicted classes of the images of a split, the most confident first.

    Returns:
        A table with a row for each image: image_id, group, y_true and predicted (slugs),
        probability (calibrated, of the predicted class), true_probability (calibrated, of the
        label), right (whether the prediction is correct), and a column of calibrated probabilities
        for each class, named by its slug.
    """
    slugs = np.array(split.slugs, dtype=object)
    calibrated = split.calibrate(temperature).y_score
    rows = np.arange(len(split))
    found = pd.DataFrame(
        {
            "image_id": pd.Series(split.image_ids, dtype=str),
            "group": pd.Series(split.group_names, dtype=str),
            "y_true": pd.Series(slugs[split.y_true], dtype=str),
            "predicted": slugs[split.predicted],
            "probability": calibrated[rows, split.predicted],
            "true_probability": calibrated[rows, split.y_true],
            "right": split.correct,
        }
    )
    scores = pd.DataFrame(calibrated, columns=list(split.slugs))
    ordered = pd.concat([found, scores], axis=1)
    return ordered.sort_values(
        ["probability", "image_id"], ascending=[False, True], ignore_index=True
    )


@dataclass(frozen=True)
class ClassDecisions:
    """The most confident right and wrong decision on images of one class.

    Each is a row of ``tabulate_decisions``, or None if there is no such decision.
    """

    slug: str
    right: pd.Series | None
    wrong: pd.Series | None


def choose_surest_decisions(found: pd.DataFrame, slugs: Sequence[str]) -> list[ClassDecisions]:
    """Choose the most confident right and wrong decision for each class that has images.

    Of more than ``N_CLASSES`` classes, those with the most images are taken. ``found`` is the table
    of ``tabulate_decisions``; the slugs are in class order.
    """
    counts = found["y_true"].value_counts()
    largest = sorted((slug for slug in slugs if slug in counts), key=lambda slug: -counts[slug])
    shown = set(largest[:N_CLASSES])
    chosen = []
    for slug in slugs:
        if slug in shown:
            own = found[found["y_true"] == slug]
            right, wrong = own[own["right"]], own[~own["right"]]
            first = [rows.iloc[0] if len(rows) else None for rows in (right, wrong)]
            chosen.append(ClassDecisions(slug, *first))
    return chosen


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of a run to show, and the numbers of all.

    Attributes:
        missed: rows of ``tabulate_decisions`` for images of the positive class that were predicted
            as another; empty if the dataset names no positive class.
        others: rows of ``tabulate_decisions`` for other mistakes.
        n_missed: number of all missed images of the positive class.
        n_others: number of all other mistakes.
        pairs: table with a row for each pair of classes that was confused, the most frequent first:
            y_true, predicted, images, groups, and share (of the images of y_true).
    """

    missed: pd.DataFrame
    others: pd.DataFrame
    n_missed: int
    n_others: int
    pairs: pd.DataFrame

    @property
    def shown(self) -> pd.DataFrame:
        """Rows of all mistakes to show."""
        return pd.concat([self.missed, self.others], ignore_index=True)


def choose_mistakes(found: pd.DataFrame, positive_class: str | None) -> Mistakes:
    """Choose the most confident mistakes from the table of ``tabulate_decisions``."""
    wrong = found[~found["right"]]
    is_missed = wrong["y_true"] == positive_class
    missed, others = wrong[is_missed], wrong[~is_missed]
    first = missed.head(N_MISSED)
    return Mistakes(
        missed=first,
        others=others.head(N_MISTAKES - len(first)),
        n_missed=len(missed),
        n_others=len(others),
        pairs=_count_pairs(wrong, found["y_true"].value_counts()),
    )


def _count_pairs(wrong: pd.DataFrame, class_sizes: pd.Series) -> pd.DataFrame:
    """Count how often each class was predicted as each other class."""
    pairs = wrong.groupby(["y_true", "predicted"], as_index=False, observed=True).agg(
        images=("image_id", "size"), groups=("group", "nunique")
    )
    pairs["share"] = pairs["images"] / class_sizes.reindex(pairs["y_true"]).to_numpy()
    return pairs.sort_values(
        ["images", "y_true", "predicted"], ascending=[False, True, True], ignore_index=True
    )
