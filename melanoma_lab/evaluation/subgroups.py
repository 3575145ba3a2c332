"""Metrics of subgroups: by age, sex, body site and source, if these are known.

The result is a table, not a ranking: of twenty intervals one misses the true value by chance, and a
subgroup of a few lesions has a wide interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.data.patient_metadata import AGE_COLUMN, is_missing
from melanoma_lab.evaluation.confidence_intervals import UNDEFINED, IntervalEstimate
from melanoma_lab.evaluation.decision_rule import OperatingPoint, measure_rates
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import SplitPredictions

#: Columns of the manifest whose values define subgroups.
SUBGROUP_COLUMNS: Final = (AGE_COLUMN, "sex", "site", "source")
#: Age in years at which each band begins. Melanoma is rare before 40 and most common from 60 on,
#: and narrower bands would have too few melanomas for useful intervals.
AGE_BANDS: Final = {"under 40": 0, "40 to 59": 40, "60 and over": 60}
NOT_KNOWN: Final = "not known"
#: The row of all images, to compare the others with.
ALL: Final = "all"

FEW_LESIONS: Final = 30
"""A subgroup with fewer lesions is marked."""

FEW_POSITIVE: Final = 10
"""A subgroup with fewer melanomas is marked too: even if ten of ten are found, the sensitivity may
be as low as 0.65.
"""

SUBGROUP_METRICS: Final = ("balanced_accuracy", "accuracy", "sensitivity", "specificity")
"""The metrics; each also has columns ``<metric>_low`` and ``<metric>_high``."""


def measure_subgroups(
    split: SplitPredictions,
    manifest: pd.DataFrame,
    score: NDArray[np.float64] | None,
    point: OperatingPoint | None,
) -> pd.DataFrame:
    """Measure one split's images by subgroup.

    Args:
        split: the predictions to measure.
        manifest: the table of all images of the split, with ``image_id`` and any of
            ``SUBGROUP_COLUMNS``.
        score: float64, shape (n,); the score of each image, in the split's order, that the
            operating point's threshold is compared with; None without an operating point.
        point: the operating point; None if the dataset names no positive class.

    Returns:
        A row for all images and one for each value of each column with two or more values:
        ``column``, ``value``, ``split``, ``n_images``, ``n_lesions``, ``n_melanoma_lesions``,
        ``n_classes`` (the number of classes present; balanced accuracies over different classes are
        not comparable), ``few``, and ``SUBGROUP_METRICS`` with 95 % intervals, the last two at the
        operating point. No rows if no column has two values.
    """
    known = manifest.set_index("image_id").reindex(split.image_ids)

    def measure(column: str, value: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
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
        estimates = {
            "balanced_accuracy": INTERVALS["balanced_accuracy"](part),
            "accuracy": INTERVALS["accuracy"](part),
            "sensitivity": UNDEFINED,
            "specificity": UNDEFINED,
        }
        if point is not None and score is not None:
            positive, _ = part.one_vs_rest(point.slug)
            rates = measure_rates(positive, score[chosen], part.groups, point.threshold)
            row["n_melanoma_lesions"] = rates.positive_lesions
            row["few"] |= rates.positive_lesions < FEW_POSITIVE
            estimates |= {"sensitivity": rates.sensitivity, "specificity": rates.specificity}
        return row | _to_columns(estimates)

    rows = [
        measure(column, value, chosen)
        for column in SUBGROUP_COLUMNS
        if column in known
        for value, chosen in split_into_subgroups(known[column])
    ]
    if rows:
        rows.insert(0, measure(ALL, ALL, np.ones(len(split), dtype=bool)))
    return pd.DataFrame(rows).astype({"n_melanoma_lesions": "Int64"}) if rows else pd.DataFrame()


def split_into_subgroups(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the values of a column, and which images have each; nothing if all have the same.

    Ages are divided into bands; words are in alphabetical order; missing values come last.

    Args:
        column: one of ``SUBGROUP_COLUMNS`` with n values.

    Yields:
        Each value as text, and bool, shape (n,).
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


def _to_columns(estimates: dict[str, IntervalEstimate]) -> dict[str, float]:
    """Return estimates and their bounds by the names of their columns."""
    return {
        f"{name}{ending}": value
        for name, share in estimates.items()
        for ending, value in (("", share.value), ("_low", share.low), ("_high", share.high))
    }
