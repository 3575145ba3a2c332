"""Make cells of a table comparable: one spelling each, ages as numbers, the unknown as missing."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import GROUPINGS, is_known
from melanoma_lab.data.tables import LINE_COLUMN


def normalise_group_ids(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a table whose equal ids of lesions and patients are equal texts.

    Ids that differ in capitals, blanks, leading zeros or Unicode form only are taken for one:
    joining too many images never leaks. Lesions that are numbered anew within each patient are told
    apart by the patient.

    Args:
        table: str columns lesion and patient.

    Returns:
        The same, empty where a word stands for nothing; and what was changed, a sentence each.
    """
    notes = []
    table = table.assign(**{name: _unify_spelling(table[name]) for name in GROUPINGS})
    both = table[(table["lesion"] != "") & (table["patient"] != "")]
    patients = both.groupby("lesion")["patient"].nunique()
    # One lesion of two patients is a slip, and joins them; if most lesions have several, it is
    # their numbers that begin anew.
    if len(patients) and (patients > 1).mean() > 0.5:
        notes.append(
            f"Most lesions, such as {patients.idxmax()}, are there with several patients: they are "
            "taken as numbered anew for each."
        )
        lesions = both["patient"] + "/" + both["lesion"]
        table = table.assign(lesion=table["lesion"].mask(table.index.isin(both.index), lesions))
    return table, tuple(notes)


def _unify_spelling(ids: pd.Series) -> list[str]:
    first: dict[str, str] = {}
    return [first.setdefault(_spelling_key(text), text) if is_known(text) else "" for text in ids]


def _spelling_key(text: str) -> str:
    """What two spellings of one id share: ``P 007``, ``p007`` and ``P007.0``."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = re.sub(r"\s+", "", plain)
    plain = re.sub(r"^(\d+)\.0+$", r"\1", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)


#: The oldest that somebody may be, in years.
MAX_AGE: Final = 130


def normalise_patient_columns(path: Path, table: pd.DataFrame, *, needed: bool) -> pd.DataFrame:
    """A table whose columns of patients are as the manifest has them.

    Args:
        path: of the table, for messages.
        table: str columns age, sex and site, and ``line``.
        needed: whether they count; else an age that is none is as good as a missing one.

    Returns:
        The same with ``age`` as float64 years, NaN where missing, and ``sex`` and ``site`` in lower
        case, empty where missing.

    Raises:
        UserError: an age is no number of years, and they are needed.
    """
    known = {name: [_word(word) for word in table[name]] for name in PATIENT_COLUMNS}
    ages = [_age(word) for word in known["age"]]
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


def _word(text: str) -> str:
    word = text.strip().lower()
    return word if is_known(word) else ""


def _age(word: str) -> float | None:
    """Years; NaN where there is nothing, None where it is something else."""
    if not word:
        return math.nan
    try:
        age = float(word)
    except ValueError:
        return None
    return age if 0 <= age <= MAX_AGE else None
