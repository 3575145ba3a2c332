"""Which images of a run are worth a look: by how sure it was of what it decided.

From the predictions alone; no TensorFlow, no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lab.evaluation.predictions import SplitPredictions
from melanoma_lab.evaluation.temperature import Temperature

#: Mistakes that are shown at most, and missed melanomas among them.
N_MISTAKES, N_MISSED = 40, 20
#: Classes and pairs of classes that are shown at most.
N_CLASSES, N_PAIRS = 12, 20


def tabulate_decisions(split: SplitPredictions, temperature: Temperature) -> pd.DataFrame:
    """List what was decided of the images of a split, the surest first.

    Args:
        split: the predictions that a run is evaluated by.
        temperature: fitted to val.

    Returns:
        A row an image: image_id, group, y_true and predicted (slugs), probability (calibrated, of
        what was predicted), true_probability (of what it is labelled), right, and a column of
        calibrated probabilities for each class, named by its slug.
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
    """The surest decisions of one class's images, rows of ``tabulate_decisions``, or None."""

    slug: str
    right: pd.Series | None
    wrong: pd.Series | None


def choose_surest_decisions(found: pd.DataFrame, slugs: Sequence[str]) -> list[ClassDecisions]:
    """For each class that has images, the surest right and the surest wrong decision of them.

    Args:
        found: ``tabulate_decisions``.
        slugs: in class order; of more than ``N_CLASSES`` the largest are taken.
    """
    counts = found["y_true"].value_counts()
    largest = sorted((slug for slug in slugs if slug in counts), key=lambda slug: -counts[slug])
    taken = set(largest[:N_CLASSES])
    chosen = []
    for slug in slugs:
        if slug in taken:
            own = found[found["y_true"] == slug]
            chosen.append(
                ClassDecisions(slug, _first(own[own["right"]]), _first(own[~own["right"]]))
            )
    return chosen


def _first(rows: pd.DataFrame) -> pd.Series | None:
    return rows.iloc[0] if len(rows) else None


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of a run that are shown, and how many there are.

    Attributes:
        missed: melanomas taken for something else, rows of ``tabulate_decisions``; empty where the
            dataset names no melanoma class.
        others: all other mistakes.
        n_missed: of the first, in all.
        n_others: of the second, in all.
        pairs: y_true, predicted, images, groups, and their share of y_true's images; the most
            frequent first.
    """

    missed: pd.DataFrame
    others: pd.DataFrame
    n_missed: int
    n_others: int
    pairs: pd.DataFrame

    @property
    def shown(self) -> pd.DataFrame:
        """All that are shown."""
        return pd.concat([self.missed, self.others], ignore_index=True)


def choose_mistakes(found: pd.DataFrame, positive_class: str | None) -> Mistakes:
    """The surest mistakes.

    Args:
        found: ``tabulate_decisions``.
        positive_class: slug of the positive class, None where the dataset names none.
    """
    wrong = found[~found["right"]]
    is_missed = wrong["y_true"] == positive_class
    missed, others = wrong[is_missed], wrong[~is_missed]
    first = missed.head(N_MISSED)
    return Mistakes(
        missed=first,
        others=others.head(N_MISTAKES - len(first)),
        n_missed=len(missed),
        n_others=len(others),
        pairs=_pairs(wrong, found["y_true"].value_counts()),
    )


def _pairs(wrong: pd.DataFrame, n_of_class: pd.Series) -> pd.DataFrame:
    """How often which class was taken for which."""
    pairs = wrong.groupby(["y_true", "predicted"], as_index=False, observed=True).agg(
        images=("image_id", "size"), groups=("group", "nunique")
    )
    pairs["share"] = pairs["images"] / n_of_class.reindex(pairs["y_true"]).to_numpy()
    return pairs.sort_values(
        ["images", "y_true", "predicted"], ascending=[False, True, True], ignore_index=True
    )
