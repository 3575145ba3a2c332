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

Readers normalise the cells of their tables for it: one spelling for each id, ages as numbers,
unknown values as missing ones.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from melanoma_lab.config.schema.data import PATIENT_COLUMNS
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import GROUPINGS, is_known
from melanoma_lab.data.tables import LINE_COLUMN

TEXT_COLUMNS: Final = (
    *("image_id", "path", "label", "diagnosis", "lesion", "patient", "source", "published"),
    *("sex", "site"),
)
LISTING_COLUMNS: Final = (*TEXT_COLUMNS, "age")
#: Largest valid age in years.
MAX_AGE: Final = 130


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

    The rows have some of ``LISTING_COLUMNS``; the others become empty. ``groupings`` maps
    ``lesion`` or ``patient`` to the column of the table with their ids.
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


def normalise_group_ids(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Normalise the spelling of the ids in the columns lesion and patient; note other changes.

    Ids that differ only in capitals, spaces, leading zeros or Unicode form become equal: joining
    too many images never leaks. Words such as ``unknown`` become empty. If lesion numbers restart
    for each patient, the patient's id is added to them.
    """
    notes = []
    table = table.assign(**{name: _unify_spelling(table[name]) for name in GROUPINGS})
    both = table[(table["lesion"] != "") & (table["patient"] != "")]
    patients = both.groupby("lesion")["patient"].nunique()
    # If a few lesions have two patients, these are mistakes, and the patients are joined. If most
    # lesions have several patients, lesion numbers restart for each patient.
    if len(patients) and (patients > 1).mean() > 0.5:
        notes.append(
            f"Most lesion ids, such as {patients.idxmax()}, occur with several patients: lesion "
            "numbers are assumed to restart for each patient."
        )
        lesions = both["patient"] + "/" + both["lesion"]
        table = table.assign(lesion=table["lesion"].mask(table.index.isin(both.index), lesions))
    return table, tuple(notes)


def _unify_spelling(ids: pd.Series) -> list[str]:
    first: dict[str, str] = {}
    return [first.setdefault(_spelling_key(text), text) if is_known(text) else "" for text in ids]


def _spelling_key(text: str) -> str:
    """Return a key that is equal for all spellings of an id: ``P 007``, ``p007``, ``p7``."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = re.sub(r"\s+", "", plain)
    plain = re.sub(r"^(\d+)\.0+$", r"\1", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)


def normalise_patient_columns(path: Path, table: pd.DataFrame, *, needed: bool) -> pd.DataFrame:
    """Normalise the patient metadata of a table to the form of the manifest.

    Args:
        table: table with the str columns age, sex and site, and with ``line``.
        needed: whether the metadata are used; if not, an invalid age counts as missing.

    Returns:
        The table with ``age`` as float64 years, NaN if missing, and ``sex`` and ``site`` in lower
        case, empty if missing.

    Raises:
        UserError: an age is not a valid number of years, and the metadata are needed.
    """
    known = {name: [_normalise_word(word) for word in table[name]] for name in PATIENT_COLUMNS}
    ages = [_parse_age(word) for word in known["age"]]
    wrong = [
        f"{word} (line {line})"
        for word, age, line in zip(table["age"], ages, table[LINE_COLUMN], strict=True)
        if age is None
    ]
    if wrong and needed:
        raise UserError(
            f"{path}: age {format_list(wrong, 5)}; expected years from 0 to {MAX_AGE}, or nothing."
        )
    return table.assign(**known).assign(age=pd.Series(ages, table.index, dtype="float64"))


def _normalise_word(text: str) -> str:
    word = text.strip().lower()
    return word if is_known(word) else ""


def _parse_age(word: str) -> float | None:
    """Parse an age in years; return NaN if it is missing, None if it is invalid."""
    if not word:
        return math.nan
    try:
        age = float(word)
    except ValueError:
        return None
    return age if 0 <= age <= MAX_AGE else None
