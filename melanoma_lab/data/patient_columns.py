"""What a table says of patients: ages as numbers, words spelt alike, the unknown as missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import is_known
from melanoma_lab.data.tables import LINE_COLUMN

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
