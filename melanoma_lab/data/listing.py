"""The listing that a reader returns: a table of a dataset's images, with notes on its making.

The table has one row for each image, sorted by image_id:

========== =====================================================================================
image_id   path relative to the root, with ``/``
path       path of the file
label      class name in the dataset
diagnosis  class name that the metadata's diagnosis stands for; empty if unknown
lesion     id that all photographs of one lesion share; empty if unknown
patient    id that all photographs of one patient share; empty if unknown
source     where the photograph comes from; empty if unknown
published  ``train``, ``val`` or ``test`` if the dataset was published with a split; else empty
age        age of the patient in years, float64; NaN if unknown
sex        sex of the patient; empty if unknown
site       body site of the lesion; empty if unknown
========== =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

TEXT_COLUMNS: Final = (
    *("image_id", "path", "label", "diagnosis", "lesion", "patient", "source", "published"),
    *("sex", "site"),
)
LISTING_COLUMNS: Final = (*TEXT_COLUMNS, "age")


@dataclass(frozen=True)
class UnmatchedImages:
    """Differences between the images in a dataset's metadata table and in its folder.

    Attributes:
        table: the table's file name; empty if the dataset has none.
        missing: names in the table without an image in the folder, sorted.
        unlisted: image_ids that are left out because the table does not name them.
    """

    table: str = ""
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, and how they were found.

    Attributes:
        images: the table that this module's docstring describes.
        unmatched: images that only the metadata table or only the folder has.
        grouped_by: names of the table's columns that group images; empty if there are none.
        columns: one line about the columns that are used; empty if there is no table.
        notes: what was left out or is not known, a sentence each.
    """

    images: pd.DataFrame
    unmatched: UnmatchedImages = UnmatchedImages()
    grouped_by: tuple[str, ...] = ()
    columns: str = ""
    notes: tuple[str, ...] = ()


def build_listing(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    unmatched: UnmatchedImages = UnmatchedImages(),
    columns: str = "",
    groupings: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Listing:
    """Build a listing from the rows that a reader found.

    Args:
        rows: some of ``LISTING_COLUMNS`` for each image; missing columns become empty.
        unmatched: images that only the metadata table or only the folder has.
        columns: one line about the columns of the table that are used.
        groupings: ``lesion`` or ``patient`` -> the column of the table with their ids.
        notes: what was left out, a sentence each.
    """
    found = pd.DataFrame(rows)
    ages = found["age"].to_numpy(float) if "age" in found.columns else np.nan
    images = found.reindex(columns=list(TEXT_COLUMNS), fill_value="").assign(age=ages)
    images = images.sort_values("image_id", ignore_index=True)
    grouped_by, unknown = [], []
    for what, name in (groupings or {}).items():
        empty = int((images[what] == "").sum())
        if empty < len(images):
            grouped_by.append(name)
        if empty:
            unknown.append(
                f"{name} is empty for {empty} of {len(images)} images: by this column, each of "
                "them is its own group."
            )
    return Listing(images, unmatched, tuple(grouped_by), columns, (*notes, *unknown))
