"""How well a network does for whom: by age, sex, body site and source, where they are known.

A table of figures, not a ranking: of twenty intervals one misses by chance, and a subgroup of a
few lesions has an interval that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.data.patient_metadata import AGE_COLUMN, is_missing
from melanoma_lab.evaluation.confidence_intervals import UNDEFINED, IntervalEstimate
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.operating_point import OperatingPoint, measure_rates
from melanoma_lab.evaluation.predictions import SplitPredictions

#: Columns of the manifest that divide images.
SUBGROUP_COLUMNS: Final = (AGE_COLUMN, "sex", "site", "source")
#: Years at which an age band begins. Melanoma is rare before 40 and commonest from 60 on, and
#: narrower bands would have too few melanomas for an interval to say anything.
AGE_BANDS: Final = {"under 40": 0, "40 to 59": 40, "60 and over": 60}
NOT_KNOWN: Final = "not known"
#: The row of all images, to hold the others against.
ALL: Final = "all"

FEW_LESIONS: Final = 30
"""Below this many lesions a subgroup is marked."""

FEW_POSITIVE: Final = 10
"""Below this many melanomas too: ten that are all found still allow a sensitivity of 0.65."""

SUBGROUP_METRICS: Final = ("balanced_accuracy", "accuracy", "sensitivity", "specificity")
"""What is measured; each has columns ``<figure>_low`` and ``<figure>_high`` beside its own."""


def measure_subgroups(
    split: SplitPredictions,
    manifest: pd.DataFrame,
    score: NDArray[np.float64] | None,
    point: OperatingPoint | None,
) -> pd.DataFrame:
    """Measure one split's images by subgroup.

    Args:
        split: the predictions to be measured.
        manifest: with ``image_id`` and any of ``SUBGROUP_COLUMNS``; of all images of the split.
        score: float64, shape (n,), what the operating point's threshold is on, for the split's
            images in their order; None where there is no such point.
        point: None where the dataset names no melanoma class.

    Returns:
        A row for all and one for each value of each column that has two or more: ``column``,
        ``value``, ``split``, ``n_images``, ``n_lesions``, ``n_melanoma_lesions``, ``n_classes``
        (those present, over which the balanced accuracy is a mean: of other classes it is another
        figure), ``few``, and ``SUBGROUP_METRICS`` with 95 % intervals, the last two at the
        operating point. No rows where no column has two values.
    """
    known = manifest.set_index("image_id").reindex(split.image_ids)

    def measured(column: str, value: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        part = split.select(chosen)
        row: dict[str, Any] = {
            "column": column,
            "value": value,
            "split": split.name,
            "n_images": len(part),
            "n_lesions": len(np.unique(part.groups)),
            "n_melanoma_lesions": pd.NA,
            "n_classes": len(np.unique(part.y_true)),
            "few": False,
        }
        row["few"] = row["n_lesions"] < FEW_LESIONS
        figures = {
            "balanced_accuracy": INTERVALS["balanced_accuracy"](part),
            "accuracy": INTERVALS["accuracy"](part),
            "sensitivity": UNDEFINED,
            "specificity": UNDEFINED,
        }
        if point is not None and score is not None:
            positive, _ = part.one_vs_rest(point.slug)
            reached = measure_rates(positive, score[chosen], part.groups, point.threshold)
            row["n_melanoma_lesions"] = reached.positive_lesions
            row["few"] |= reached.positive_lesions < FEW_POSITIVE
            figures |= {"sensitivity": reached.sensitivity, "specificity": reached.specificity}
        return row | _columns(figures)

    found = [
        measured(column, value, chosen)
        for column in SUBGROUP_COLUMNS
        if column in known
        for value, chosen in split_into_subgroups(known[column])
    ]
    if found:
        found.insert(0, measured(ALL, ALL, np.ones(len(split), dtype=bool)))
    return pd.DataFrame(found).astype({"n_melanoma_lesions": "Int64"}) if found else pd.DataFrame()


def split_into_subgroups(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The values of a column, and which images have each; nothing where all have the same.

    Ages come in bands, words in alphabetical order, what is not known last.
    """
    missing = is_missing(column).to_numpy()
    if column.name == AGE_COLUMN:
        years = column.astype(np.float64).to_numpy()
        band = np.searchsorted(list(AGE_BANDS.values()), years, side="right") - 1
        parts = [(name, (band == i) & ~missing) for i, name in enumerate(AGE_BANDS)]
    else:
        words = column.astype(str).to_numpy()
        parts = [(str(word), words == word) for word in np.unique(words[~missing])]
    parts = [(value, chosen) for value, chosen in parts if chosen.any()]
    if len(parts) < 2:
        return
    yield from parts
    if missing.any():
        yield NOT_KNOWN, missing


def _columns(figures: dict[str, IntervalEstimate]) -> dict[str, float]:
    """Figures as columns of a table."""
    return {
        f"{name}{ending}": value
        for name, share in figures.items()
        for ending, value in (("", share.value), ("_low", share.low), ("_high", share.high))
    }
