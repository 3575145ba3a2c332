"""Ids of lesions and patients as a table has them: one spelling each, one lesion one patient."""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

from melanoma_lab.data.columns import GROUPINGS, is_known


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
