"""What a reader returns: the table of a dataset's images, and how it was made.

The table has one row an image, sorted by image_id:

========== =====================================================================================
image_id   path relative to the root, with ``/``
path       where the file lies
label      class name as the dataset has it
diagnosis  class name that the metadata's diagnosis stands for; empty where it says nothing
lesion     what photographs of one lesion share; empty where unknown
patient    what photographs of one patient share; empty where unknown
source     where the photograph comes from; empty where unknown
published  ``train``, ``val`` or ``test`` where the dataset was published divided; else empty
age        of the patient, float64 years; NaN where unknown
sex        of the patient; empty where unknown
site       where on the body; empty where unknown
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
    """Where a dataset's metadata table and its folder do not name the same images.

    Attributes:
        table: the table's file name; empty where the dataset has none.
        missing: names in the table without an image in the folder, sorted.
        unlisted: images, by image_id, that are left out because the table does not name them.
    """

    table: str = ""
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, and how they were found.

    Attributes:
        images: the table of this module's description.
        unmatched: what the metadata table and the folder do not both have.
        grouped_by: names of the table's columns that say which images belong together; empty
            where nothing does.
        columns: which columns of the table count, in one line; empty where there is no table.
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
    """Make a listing of what a reader found.

    Args:
        rows: some of ``LISTING_COLUMNS`` for each image; what a reader does not know is empty.
        unmatched: what the metadata table and the folder do not both have.
        columns: which columns of the table count, in one line.
        groupings: ``lesion`` or ``patient`` -> the column of the table that names them.
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
                f"{name} is empty for {empty} of {len(images)} images: as to it, each of them is a "
                "group of its own."
            )
    return Listing(images, unmatched, tuple(grouped_by), columns, (*notes, *unknown))
