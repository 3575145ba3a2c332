"""Suggest the reader that fits a folder, for messages of a reader that does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Final

from melanoma_lab.config.overrides import format_override
from melanoma_lab.config.schema.data import CsvColumns, CsvDataset, Ham10000Dataset
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import is_grouping_candidate, split_words
from melanoma_lab.data.image_files import find_table_file, walk_images
from melanoma_lab.data.tables import Table, read_table

#: Endings of tables; a table from Dataverse may have none.
TABLE_SUFFIXES: Final = frozenset({"", ".csv", ".tab", ".tsv", ".txt"})
#: Largest number of places of a table's images, counting the root; ``dataset=csv`` reads only one
#: folder.
MAX_FOLDERS: Final = 2

#: Usual names of the column of labels, the most reliable first.
LABEL_COLUMNS: Final = (
    *("label", "class", "dx", "diagnosis", "diagnostic", "category", "benign malignant"),
    *("diagnosis 1", "diagnosis 3", "target"),
)
#: Diagnosis codes of HAM10000.
HAM10000_CODES: Final = frozenset({"akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"})
#: Smallest share of a table's rows that must name an image.
MIN_MATCHING_SHARE: Final = 0.9
#: Size in bytes of the largest table that is read for a message.
MAX_TABLE_BYTES: Final = 10_000_000


def suggest_reader(root: Path) -> str:
    """Return the overrides that read a folder by one of its tables; empty if there are none."""
    folders: dict[str, set[str]] = {}
    for path in walk_images(root):
        folders.setdefault(path.stem.lower(), set()).add(path.parent.relative_to(root).as_posix())
    for path in _table_files(root):
        try:
            table = read_table(path) if path.stat().st_size <= MAX_TABLE_BYTES else None
        except (UserError, OSError):  # no table, or unreadable: nothing to suggest
            continue
        words = [] if table is None else _as_ham10000(table) or _as_csv(root, table, folders)
        if words:
            return " ".join(words)
    return ""


def describe_unread_tables(root: Path) -> tuple[str, ...]:
    """Describe the tables in a folder that name lesions or patients but are not read.

    Args:
        root: root of a dataset whose reader uses no table.
    """
    notes = []
    for path in _table_files(root):
        names = _column_names(path)
        groupings = [name for name in names if is_grouping_candidate(name)]
        if groupings:
            notes.append(
                f"{path.name} has {format_list(groupings)} but is not read; with dataset=csv it "
                "would define which images belong together."
            )
    return tuple(notes)


def build_missing_table_error(root: Path, name: str, key: str) -> UserError:
    """Build the error about a missing table, with a suggestion.

    Args:
        root: root of the dataset.
        name: file name of the expected table.
        key: key of the configuration that names the table.
    """
    there = [path.name for path in _table_files(root)]
    same = [other for other in there if Path(other).stem.lower() == Path(name).stem.lower()]
    advice = ""
    if same:
        advice = f" The folder has {same[0]}: {format_override(key, same[0])}"
    elif line := suggest_reader(root):
        advice = f" Instead, `{line}` reads it."
    elif there:
        advice = f" The folder has {format_list(there)}: set {key}=..."
    return UserError(
        f"dataset.root={root}: no {name} in it; expected this table, which holds "
        f"the labels.{advice}"
    )


def _column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns; empty if the file is not a table."""
    try:
        return read_table(path).names if path.stat().st_size <= MAX_TABLE_BYTES else ()
    except (UserError, OSError):
        return ()


def _table_files(root: Path) -> list[Path]:
    """List the files in a folder whose endings are those of tables, or that have none."""
    return sorted(
        path for path in root.iterdir() if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES
    )


def _as_ham10000(table: Table) -> list[str]:
    """Return the overrides that read a table as HAM10000's; empty if it has another format."""
    if (
        not {"lesion_id", "image_id", "dx"} <= set(table.names)
        or set(table.values("dx")) != HAM10000_CODES
    ):
        return []
    name = table.path.name
    words = [] if name == Ham10000Dataset.metadata else [format_override("dataset.metadata", name)]
    return ["dataset=ham10000", *words]


def _as_csv(root: Path, table: Table, folders: Mapping[str, set[str]]) -> list[str]:
    """Return the overrides that read a table as ``dataset=csv``; empty if it does not fit.

    It fits if it has a column of labels and one folder has all its images.
    """
    by_words = {" ".join(split_words(name)): name for name in reversed(table.names)}
    label = next((by_words[usual] for usual in LABEL_COLUMNS if usual in by_words), None)
    if label is None or not table.rows:
        return []
    for name in table.names:
        values = table.values(name)
        found = [folders.get(PureWindowsPath(value).stem.lower(), set()) for value in values]
        places = [".", *sorted(set().union(*found))]
        if len(places) > MAX_FOLDERS or sum(map(bool, found)) < MIN_MATCHING_SHARE * len(found):
            continue
        for place in places:
            if find_table_file(root / place, values[0]):
                settings = {
                    "dataset.table": (table.path.name, CsvDataset.table),
                    "dataset.images": (place, CsvDataset.images),
                    "dataset.columns.image": (name, CsvColumns.image),
                    "dataset.columns.label": (label, CsvColumns.label),
                }
                words = [
                    format_override(key, value)
                    for key, (value, default) in settings.items()
                    if value != default
                ]
                return ["dataset=csv", *words]
    return []
