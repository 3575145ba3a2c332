"""Which images of a run are worth a look: by how sure it was of what it decided.

From the predictions table alone; no TensorFlow, no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lab.evaluation.predictions import judged_split, slugs_of, split_arrays
from melanoma_lab.evaluation.temperature import Temperature

#: Mistakes that are shown at most, and missed melanomas among them.
N_MISTAKES, N_MISSED = 40, 20
#: Classes and pairs of classes that are shown at most.
N_CLASSES, N_PAIRS = 12, 20


def tabulate_decisions(table: pd.DataFrame, temperature: Temperature) -> pd.DataFrame:
    """What was decided of the images that a run is judged by, the surest first.

    Args:
        table: a checked predictions table; of its test images, or of those of val where it has
            none.
        temperature: fitted to val.

    Returns:
        A row an image: image_id, group, y_true and predicted (slugs), probability (calibrated, of
        what was predicted), true_probability (of what it is labelled), right, and a column of
        calibrated probabilities for each class, named by its slug.
    """
    split = judged_split(table)
    slugs = slugs_of(table)
    y_true, y_score = split_arrays(table, split)
    calibrated = temperature.apply(y_score)
    rows = np.arange(len(y_true))
    decided = y_score.argmax(axis=1) if len(rows) else y_true
    found = table.loc[table["split"] == split, ["image_id", "group", "y_true"]].reset_index(
        drop=True
    )
    found["predicted"] = np.array(slugs, dtype=object)[decided]
    found["probability"] = calibrated[rows, decided]
    found["true_probability"] = calibrated[rows, y_true]
    found["right"] = decided == y_true
    scores = pd.DataFrame(calibrated, columns=list(slugs))
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


def choose_mistakes(found: pd.DataFrame, melanoma: str | None) -> Mistakes:
    """The surest mistakes.

    Args:
        found: ``tabulate_decisions``.
        melanoma: slug of the melanoma class, None where the dataset names none.
    """
    wrong = found[~found["right"]]
    is_missed = wrong["y_true"] == melanoma
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
