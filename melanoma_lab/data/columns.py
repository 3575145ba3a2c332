"""Recognise the columns of a table by the names that are usual in the field.

A table that names lesions or patients must never be split by image just because its column has an
unexpected name. Columns are recognised by their names, in any case and spelling (``lesion_id``,
``PatientID``, ``case-num``); ``dataset.columns`` names them if that is not enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.image_files import split_words
from melanoma_lab.data.tables import Table

#: Ids that make images belong together.
GROUPINGS: Final = ("lesion", "patient")
#: The value of ``dataset.columns.*`` for using no such column.
NO_COLUMN: Final = "none"
#: Words for a missing value, in lower case.
UNKNOWN: Final = frozenset(
    {"", "unknown", "unk", "na", "n/a", "n.a.", "nan", "none", "null", "?", "-", "--", ".", "nil"}
    | {"missing", "not available", "not known", "undefined"}
)
#: Words for the lesion or patient that an id identifies.
GROUPING_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "lesion": frozenset({"lesion", "lesao", "lasion"}),
    "patient": frozenset(
        {"patient", "paciente", "subject", "subj", "case", "person", "participant", "individual"}
        | {"proband"}
    ),
}
#: Words that end the name of a column of ids.
ID_WORDS: Final = frozenset(
    {"id", "ids", "num", "number", "no", "nr", "uid", "uuid", "guid", "key", "idx", "index"}
    | {"hash", "identifier", "ref"}
)
#: Beginnings of words that name a lesion or patient in any compound: patients, Patientennummer.
STEMS: Final = ("lesion", "lesao", "lasion", "patient", "pacient", "proband", "participant")
#: Words that may name something with several images; the values of the column decide.
DOUBTFUL_WORDS: Final = frozenset(
    {"accession", "biopsy", "client", "cluster", "code", "donor", "dup", "duplicate", "encounter"}
    | {"exam", "examination", "family", "group", "grouping", "hospital", "medical", "mole", "mrn"}
    | {"naevus", "name", "nevus", "pat", "pid", "pt", "record", "sample", "series", "session"}
    | {"specimen", "study", "tumor", "tumour", "unique", "user", "visit", "wound"}
)
#: Words of columns that describe a lesion or patient instead of identifying it.
CATEGORY_WORDS: Final = frozenset(
    {"age", "area", "benign", "category", "class", "color", "colour", "count", "date", "day"}
    | {"diagnosis", "diameter", "dx", "gender", "grade", "height", "history", "hx", "kind", "label"}
    | {"length", "localisation", "localization", "location", "malignant", "month", "of", "position"}
    | {"phototype", "race", "region", "risk", "score", "sex", "site", "size", "skin", "stage"}
    | {"status", "thickness", "time", "type", "weight", "width", "year", "years", "mm", "cm"}
)
#: Smallest share of different values among the filled cells of a doubtful column of ids; with
#: fewer it is a category.
SHARE_OF_IDS: Final = 0.2
#: Smallest number of different values of such a column.
MIN_IDS: Final = 5
#: The same share for a column called only lesion or case, which may name kinds.
SHARE_OF_NAMES: Final = 0.05
#: Other content of a column -> usual names as words in lower case, the most reliable first.
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


def detect_grouping(name: str) -> str | None:
    """Return ``lesion`` or ``patient`` if a column's name is that of such ids; else None."""
    words = _without_id_words(name)
    # patient_lesion_id identifies lesions; patient_case_id identifies patients.
    found = [
        next((what for what, names in GROUPING_WORDS.items() if word in names), None)
        for word in words
    ]
    if not found or None in found:
        return None
    return "lesion" if "lesion" in found else "patient"


def is_grouping_candidate(name: str) -> bool:
    """Return whether a column's name may be that of ids; its values must look like ids too."""
    return detect_grouping(name) is not None or _least_share(name) is not None


def find_columns(
    table: Table,
    chosen: Mapping[str, str | None],
    taken: Sequence[str],
    *,
    configurable: bool = True,
) -> dict[str, str]:
    """Find the columns of lesions, patients and other facts about the images.

    Args:
        chosen: fact (lesion, patient, age, sex, site, source, diagnosis, split) -> the column that
            ``dataset.columns`` names; ``none``: use no column; None: recognise it by its name.
            Facts that are not in ``chosen`` are not searched for.
        taken: columns that are something else, such as the label.
        configurable: whether ``dataset.columns`` exists for this dataset.

    Returns:
        Fact -> the name of its column. Columns that ``chosen`` names are not checked.

    Raises:
        UserError: several columns could be meant, or a column looks as if it grouped images and
            is not used.
    """
    named = {what: name for what, name in chosen.items() if name not in (None, NO_COLUMN)}
    free = [name for name in dict.fromkeys(table.names) if name not in {*taken, *named.values()}]
    found = {what: str(name) for what, name in named.items()}
    for what in NAMES:
        if what in chosen and chosen[what] is None:
            by_words = {" ".join(split_words(name)): name for name in reversed(free)}
            name = next((by_words[usual] for usual in NAMES[what] if usual in by_words), None)
            if name is not None:
                found[what] = name
    if chosen["lesion"] == NO_COLUMN:  # the user wants no groups, so none are recognised
        return found
    for what in GROUPINGS:
        names = [name for name in free if detect_grouping(name) == what]
        if chosen[what] is None and len(names) == 1:
            found[what] = names[0]
    for what in GROUPINGS:
        if chosen[what] is None:
            alike = [
                name
                for name in _find_grouping_candidates(table, free, what)
                if name not in found.values()
            ]
            _refuse_unused(table, what, alike, found, configurable=configurable)
    return found


def describe_columns(table: Table, found: Mapping[str, str]) -> str:
    """Describe in one line the columns that were found, and unused ones of possible ids."""
    by = [found[what] for what in GROUPINGS if what in found]
    empty = [name for name in by if not any(map(is_known, table.values(name)))]
    by = [name for name in by if name not in empty]
    parts = [f"groups by {' and '.join(by)}"] if by else []
    parts += [f"{format_list(empty)} empty"] if empty else []
    parts += [
        what if what == name else f"{what} from {name}"
        for what, name in found.items()
        if what not in GROUPINGS
    ]
    alike = [
        name for what in GROUPINGS for name in _find_grouping_candidates(table, table.names, what)
    ]
    unused = [name for name in alike if name not in found.values()]
    parts += [f"{format_list(unused)} not used, as dataset.columns says"] if unused else []
    return f"{table.path.name}: {'; '.join(parts)}." if parts else ""


def check_grouping_ids(table: Table, found: Mapping[str, str], labels: Sequence[str]) -> None:
    """Refuse a recognised column of lesions or patients whose values are categories, not ids.

    Args:
        found: result of ``find_columns``, without the columns that the user named.

    Raises:
        UserError: a column has too few different values for the number of images.
    """
    for what in set(GROUPINGS).intersection(found):
        name = found[what]
        values = [value for value in table.values(name) if is_known(value)]
        least = len(set(labels))
        if not ID_WORDS.intersection(split_words(name)):
            least = max(least, int(SHARE_OF_NAMES * len(values)))
        if values and len(set(values)) <= least < len(values) / 4:
            shown = format_list(sorted(set(values)))
            raise UserError(
                f"{table.path}: column {name} has only the values {shown} for {len(labels)} "
                f"images; it looks like a category of {what}, not like an id. To ignore it: "
                f"{format_without_grouping(what, found)} If these are ids: "
                f"{format_override(f'dataset.columns.{what}', name)}"
            )


def format_without_grouping(what: str, found: Mapping[str, str]) -> str:
    """Format the overrides that ignore one of the two grouping columns and keep the other."""
    line = f"dataset.columns.{what}={NO_COLUMN}"
    if what == "lesion" and "patient" in found:  # without lesions, patients are not recognised
        line += " " + format_override("dataset.columns.patient", found["patient"])
    return line


def is_known(value: str) -> bool:
    """Return whether a cell has a value, other than a word such as ``unknown``."""
    return value.strip().lower() not in UNKNOWN


def _find_grouping_candidates(table: Table, names: Sequence[str], what: str) -> list[str]:
    """Find the columns whose names and values look like ids of lesions, or else of patients."""
    found = []
    for name in dict.fromkeys(names):
        names_lesion = detect_grouping(name) == "lesion" or any(
            word.startswith(("lesion", "lesao", "lasion")) for word in split_words(name)
        )
        if names_lesion is not (what == "lesion"):
            continue
        if detect_grouping(name) is not None:
            found.append(name)
            continue
        share = _least_share(name)
        values = [value for value in table.values(name) if is_known(value)]
        fewest = 2 if share == 0 else MIN_IDS
        if share is not None and max(fewest, share * len(values)) <= len(set(values)) < len(values):
            found.append(name)
    return found


def _refuse_unused(
    table: Table,
    what: str,
    alike: Sequence[str],
    found: Mapping[str, str],
    *,
    configurable: bool,
) -> None:
    if not alike:
        return
    images = "look" if len(alike) > 1 else "looks"
    start = (
        f"{table.path}: {format_list(alike)} {images} like ids that group images of one lesion "
        "or patient, but would not be used. "
    )
    if not configurable:
        raise UserError(
            f"{start}Rename one column to {what}_id to keep them on one side of every split, and "
            "remove others."
        )
    key = f"dataset.columns.{what}"
    lines = [format_override(key, name) for name in alike[:3]]
    without_it = (
        format_override(key, found[what]) if what in found else format_without_grouping(what, found)
    )
    raise UserError(f"{start}To use it: {' or '.join(lines)} To ignore it: {without_it}")


def _least_share(name: str) -> float | None:
    """Return the share of values that must differ in a column of ids, judged by its name.

    The share is 0 for a name with lesion or patient and id, such as lesion_id_x; it is None for a
    name that cannot be that of ids.
    """
    words = {word for word in _parts(split_words(name)) if not word.isdigit()}
    if words & CATEGORY_WORDS or split_words(name)[:1] in (["n"], ["num"], ["number"], ["count"]):
        return None
    groupings = frozenset().union(*GROUPING_WORDS.values())
    names_group = words & groupings or any(word.startswith(STEMS) for word in words)
    if names_group and words & ID_WORDS:
        return 0.0
    known = DOUBTFUL_WORDS | groupings
    if names_group or (words & known and words <= known | ID_WORDS):
        return SHARE_OF_IDS
    return None


def _without_id_words(name: str) -> list[str]:
    words = _parts(split_words(name))
    if words[:1] == ["id"]:
        words = words[1:]
    while words and (words[-1] in ID_WORDS or words[-1].isdigit()):
        words = words[:-1]
    return words


def _parts(words: Sequence[str]) -> list[str]:
    """Split compounds that end in a word for id: ``lesionid`` becomes lesion, id."""
    known = DOUBTFUL_WORDS.union(*GROUPING_WORDS.values())
    found: list[str] = []
    for word in words:
        ending = next(
            (end for end in ID_WORDS if word.endswith(end) and word.removesuffix(end) in known), ""
        )
        found += [word.removesuffix(ending), ending] if ending else [word]
    return found
