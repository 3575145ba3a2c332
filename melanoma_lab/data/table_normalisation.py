"""Normalise the cells of a table: one spelling for each id, ages as numbers, unknown as missing."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.data import PATIENT_COLUMNS
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import GROUPINGS, is_known
from melanoma_lab.data.tables import LINE_COLUMN


def normalise_group_ids(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Normalise the spelling of the ids of lesions and patients.

    Ids that differ only in capitals, spaces, leading zeros or Unicode form become equal: joining
    too many images never leaks. If lesion numbers restart for each patient, the patient's id is
    added to them.

    Args:
        table: table with the str columns lesion and patient.

    Returns:
        The table with normalised ids, empty for words such as ``unknown``; and notes on changes, a
        sentence each.
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


#: Largest valid age in years.
MAX_AGE: Final = 130


def normalise_patient_columns(path: Path, table: pd.DataFrame, *, needed: bool) -> pd.DataFrame:
    """Normalise the patient metadata of a table to the form of the manifest.

    Args:
        path: path of the table, for messages.
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
