"""Recognise the columns of a table by the names that the field gives them.

A table that names lesions or patients must never be split by image because its column has another
name than the lab's own. Columns are recognised by their names, in any case and spelling
(``lesion_id``, ``PatientID``, ``case-num``); ``dataset.columns`` says it where that is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from melanoma_lab.data.tables import Table
from melanoma_lab.errors import UserError, some

#: What a column may say of which images belong together.
GROUPINGS: Final = ("lesion", "patient")
#: The value of ``dataset.columns.*`` that does without a column on purpose.
WITHOUT: Final = "none"
#: Words for what an id in a column stands for.
GROUPING_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "lesion": frozenset({"lesion"}),
    "patient": frozenset(
        {"patient", "subject", "subj", "case", "person", "participant", "individual", "proband"}
    ),
}
#: Words that end the name of a column of ids.
ID_WORDS: Final = frozenset(
    {"id", "ids", "num", "number", "no", "nr", "uid", "uuid", "guid", "key", "idx", "index"}
    | {"hash", "identifier", "ref"}
)
#: Words that may stand for something that has several images; the values must say so too.
DOUBTFUL_WORDS: Final = frozenset(
    {"accession", "biopsy", "client", "code", "encounter", "exam", "examination", "family"}
    | {"group", "grouping", "mole", "mrn", "naevus", "name", "nevus", "pat", "pid", "pt", "record"}
    | {"series", "session", "specimen", "study", "tumor", "tumour", "visit", "wound"}
)
#: Of the filled cells of a doubtful column at least this share differ, else it is a category.
SHARE_OF_IDS: Final = 0.1
#: Fewer values are categories too.
FEWEST_IDS: Final = 4
#: What else a column may say -> its names as in ``column_words``, the surest first.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "age": ("age", "age approx", "approx age", "patient age", "age years", "age at diagnosis"),
    "sex": ("sex", "gender", "patient sex", "patient gender"),
    "site": (
        *("site", "anatom site general", "anatom site general challenge", "anatom site"),
        *("anatomical site", "anatomic site", "body site", "body part", "body location"),
        *("localization", "localisation", "location", "region", "body region"),
    ),
    "source": (
        *("source", "attribution", "institution", "hospital", "clinic", "center", "centre"),
        *("camera", "device"),
    ),
    "diagnosis": ("diagnosis",),
    "split": ("split",),
}


def grouping_of(name: str) -> str | None:
    """Return what a column's name says that equal values share: ``lesion``, ``patient`` or None.

    Args:
        name: of a column, such as ``lesion_id``, ``PatientID``, ``case-num``.
    """
    words = column_words(name)
    if words[:1] == ["id"]:
        words = words[1:]
    while words and (words[-1] in ID_WORDS or words[-1].isdigit()):
        words = words[:-1]
    # patient_lesion_id numbers the lesions; patient_case_id the patients.
    found = [
        next((what for what, names in GROUPING_WORDS.items() if word in names), None)
        for word in words
    ]
    if not found or None in found:
        return None
    return "lesion" if "lesion" in found else "patient"


def find_columns(
    table: Table,
    chosen: Mapping[str, str | None],
    taken: Sequence[str],
    *,
    configurable: bool = True,
) -> dict[str, str]:
    """Find the columns that say what is known of the images.

    Args:
        table: as it was read.
        chosen: lesion, patient, age, sex, site, source, diagnosis, split -> the column that
            ``dataset.columns`` names; ``none`` does without; None: recognise it by its name. One
            that is not in ``chosen`` is not looked for.
        taken: columns that are something else, such as the label.
        configurable: whether ``dataset.columns`` exists for this dataset.

    Returns:
        What is known -> the name of its column. A column that was named is not checked.

    Raises:
        UserError: several columns could be meant, or one looks as if it said which images belong
            together and is not used.
    """
    named = {what: name for what, name in chosen.items() if name not in (None, WITHOUT)}
    free = [name for name in dict.fromkeys(table.names) if name not in {*taken, *named.values()}]
    found = {what: str(name) for what, name in named.items()}
    for what in NAMES:
        if what in chosen and chosen[what] is None:
            spelt = {" ".join(column_words(name)): name for name in reversed(free)}
            name = next((spelt[usual] for usual in NAMES[what] if usual in spelt), None)
            if name is not None:
                found[what] = name
    # A user who has named, or done without, what photographs of one lesion share has decided.
    if chosen["lesion"] != WITHOUT:
        for what in GROUPINGS:
            names = [name for name in free if grouping_of(name) == what]
            if chosen[what] is None and names:
                found[what] = _only(table, what, names, configurable=configurable)
    if chosen["lesion"] is None and chosen["patient"] is None:
        unused = [name for name in free if name not in found.values()]
        _refuse_unused(table, unused, configurable=configurable)
    return found


def describe_columns(table: Table, found: Mapping[str, str]) -> str:
    """Say in one line which columns count, and which could say what belongs together and do not.

    Args:
        table: as it was read.
        found: as of ``find_columns``.
    """
    by = [found[what] for what in GROUPINGS if what in found]
    parts = [f"groups by {' and '.join(by)}"] if by else []
    parts += [
        what if what == name else f"{what} from {name}"
        for what, name in found.items()
        if what not in GROUPINGS
    ]
    unused = [name for name in table.names if grouping_of(name) and name not in found.values()]
    parts += [f"{some(unused)} not used, as dataset.columns says"] if unused else []
    return f"{table.path.name}: {'; '.join(parts)}." if parts else ""


def check_grouping(table: Table, found: Mapping[str, str], labels: Sequence[str]) -> None:
    """Refuse a recognised column of lesions or patients whose values are categories, not ids.

    Args:
        table: as it was read.
        found: as of ``find_columns``, but only what was recognised and not named.
        labels: the class of each row.

    Raises:
        UserError: a column has no more values than there are classes.
    """
    for what, name in found.items():
        values = set(table.values(name)) - {""}
        if what in GROUPINGS and values and len(values) <= len(set(labels)) < len(labels) / 4:
            raise UserError(
                f"{table.path}: column {name} has {len(values)} different values "
                f"({some(sorted(values))}) for {len(labels)} images; it looks like a kind of "
                f"{what}, not like an id. Set dataset.columns.{what}={WITHOUT} to do without it, "
                f"or dataset.columns.{what}={name} if it is an id."
            )


def _only(table: Table, what: str, names: Sequence[str], *, configurable: bool) -> str:
    if len(names) > 1:
        lines = " or ".join(f"dataset.columns.{what}={name}" for name in names[:3])
        raise UserError(
            f"{table.path}: {some(names)} could each say which images belong together ({what}). "
            + (f"Set {lines}." if configurable else f"Rename one to {what}_id, remove the others.")
        )
    return names[0]


def _refuse_unused(table: Table, free: Sequence[str], *, configurable: bool) -> None:
    for name in free:
        values = [value for value in table.values(name) if value]
        least = _least_values(name, len(values))
        if least is not None and least <= len(set(values)) < len(values):
            keep, without = (
                f"Set dataset.columns.patient={name}",
                f"dataset.columns.patient={WITHOUT}",
            )
            if not configurable:
                keep, without = "Rename it to patient_id", "remove it"
            raise UserError(
                f"{table.path}: column {name} looks as if it said which images belong together "
                f"({len(set(values))} different values in {len(values)} rows). {keep} to keep "
                f"them on one side of every split, or {without} to do without."
            )


def _least_values(name: str, filled: int) -> float | None:
    """Return how many values make a column one of ids; None if its name says something else."""
    words = {word for word in column_words(name) if not word.isdigit()}
    groupings = frozenset().union(*GROUPING_WORDS.values())
    if words & groupings and words & ID_WORDS:  # lesion_id_x, isic_patient_id
        return FEWEST_IDS
    known = DOUBTFUL_WORDS | groupings
    if words & known and words <= known | ID_WORDS:
        return max(FEWEST_IDS, SHARE_OF_IDS * filled)
    return None


def column_words(name: str) -> list[str]:
    """Return the words of a column's name in lower case: ``PatientID_2`` is patient, id, 2."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+|\d+", spaced.lower())
    return [part for word in words for part in _parts(word)]


def _parts(word: str) -> list[str]:
    """``lesionid`` is lesion, id."""
    for known in (name for names in GROUPING_WORDS.values() for name in names):
        if word.startswith(known) and word[len(known) :] in ID_WORDS:
            return [known, word[len(known) :]]
    return [word]
