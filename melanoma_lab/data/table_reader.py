"""Read a dataset by a table with the path and label of every image (``dataset=csv``).

Other readers ask here whether a table in their folder would be read better.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Final

import pandas as pd

from melanoma_lab.config.overrides import format_override
from melanoma_lab.config.schema.data import PATIENT_COLUMNS, CsvColumns, CsvDataset, Ham10000Dataset
from melanoma_lab.core.errors import UserError, suggest_similar
from melanoma_lab.core.formatting import format_count, format_list
from melanoma_lab.data.columns import (
    GROUPINGS,
    check_grouping_ids,
    describe_columns,
    find_columns,
    is_grouping_candidate,
)
from melanoma_lab.data.image_files import (
    check_inside,
    exclude_files,
    find_table_file,
    split_words,
    suggest_file,
    walk_images,
)
from melanoma_lab.data.listing import (
    Listing,
    build_listing,
    normalise_group_ids,
    normalise_patient_columns,
)
from melanoma_lab.data.tables import LINE_COLUMN, ColumnSpec, Table, read_table

#: Words for a part of a published split -> the part.
PUBLISHED_SPLITS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
#: Columns that every table must have.
REQUIRED: Final = ("image", "label")
#: Columns in which two rows of one image may differ, for messages.
COMPARED_COLUMNS: Final = ("label", "lesion", "patient", "diagnosis", "source", "published")
#: Largest number of lines that a message names.
N_SHOWN: Final = 5
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


def read_csv_dataset(dataset: CsvDataset, root: Path, *, patients: bool = False) -> Listing:
    """List the images of a dataset by its table.

    Raises:
        UserError: the table is invalid; the message names lines and columns.
    """
    table_path = root / dataset.table
    if not table_path.is_file():
        raise build_missing_table_error(root, dataset.table, "dataset.table")
    table = read_table(table_path, dataset.encoding)
    configured = vars(dataset.columns)
    chosen = {what: name for what, name in configured.items() if what not in REQUIRED}
    found = find_columns(table, chosen, [configured[what] for what in REQUIRED])
    recognised = {what: name for what, name in found.items() if configured[what] is None}
    used = found | {what: configured[what] for what in REQUIRED}
    images = table.select(
        {what: ColumnSpec(used.get(what, ""), f"dataset.columns.{what}") for what in configured}
    )
    if images.empty:
        raise UserError(f"{table_path}: the table lists no images.")
    _refuse(table_path, images[LINE_COLUMN][images["image"] == ""], "no image named")
    _refuse(table_path, images[LINE_COLUMN][images["label"] == ""], "no label")
    if "diagnosis" in recognised and not set(images["label"]).intersection(images["diagnosis"]):
        images["diagnosis"] = ""  # its words differ from the labels', so it cannot confirm any
        del found["diagnosis"]
    check_grouping_ids(table, recognised, list(images["label"]))
    images = normalise_patient_columns(table_path, images, needed=patients)
    images, changed = normalise_group_ids(images)
    images["published"] = _published(table_path, images)
    images["path"] = list(_paths(dataset, root, table_path, images))
    images["image_id"] = [_image_id(path, root) for path in images["path"]]
    _refuse_repeated(table_path, images)
    kept, notes = exclude_files(list(images["image_id"]), dataset.exclude)
    return build_listing(
        images.loc[kept],
        columns=describe_columns(table, found),
        groupings={what: found[what] for what in GROUPINGS if what in found},
        notes=(*notes, *changed),
    )


def _refuse(table_path: Path, lines: Iterable[int], what: str) -> None:
    wrong = [str(line) for line in lines]
    if wrong:
        shown = format_list(wrong, N_SHOWN)
        count = format_count(len(wrong), "line")
        raise UserError(f"{table_path}: {what} in {count}: {shown}.")


def _published(table_path: Path, table: pd.DataFrame) -> pd.Series:
    words = table["split"].str.lower()
    unknown = table.loc[
        (words != "") & ~words.isin(list(PUBLISHED_SPLITS)), ["split", LINE_COLUMN, "image"]
    ]
    if len(unknown):
        word, line, image = unknown.iloc[0]
        close = suggest_similar(word.lower(), PUBLISHED_SPLITS)
        raise UserError(
            f"{table_path}: split {word} of {image} (line {line}); expected train, val, test or "
            "nothing." + (f" {close}" if close else "")
        )
    return words.map(PUBLISHED_SPLITS).fillna("")


def _paths(dataset: CsvDataset, root: Path, table_path: Path, table: pd.DataFrame) -> Iterator[str]:
    """Yield the path of each image; refuse all missing files in one message."""
    inside, checked = root.resolve(), set[Path]()
    folder = root / dataset.images
    missing: list[tuple[int, str]] = []
    for name, line in zip(table["image"], table[LINE_COLUMN], strict=True):
        path = find_table_file(folder, name)
        if path is None:
            missing.append((line, name))
            continue
        if not dataset.outside_root and (path.is_symlink() or path.parent not in checked):
            check_inside(path, inside)
            checked.add(path.parent)
        yield str(path)
    if missing:
        shown = format_list([f"{name} (line {line})" for line, name in missing], N_SHOWN)
        raise UserError(
            f"{table_path}: {shown}: no file below {folder}.{suggest_file(folder, missing[0][1])} "
            "Paths in the table are relative to dataset.root/dataset.images."
        )


def _image_id(path: str, root: Path) -> str:
    """Return the path relative to the root, without ``..``; the full path if it is outside."""
    plain, base = (Path(os.path.normpath(p)) for p in (path, root))
    return (plain.relative_to(base) if plain.is_relative_to(base) else plain).as_posix()


def _refuse_repeated(table_path: Path, table: pd.DataFrame) -> None:
    """Refuse images with several rows; the message says in what the rows differ."""
    repeated = table[table["image_id"].duplicated(keep=False)]
    if repeated.empty:
        return
    image_id = repeated["image_id"].iloc[0]
    rows = repeated[repeated["image_id"] == image_id]
    differs = [
        f"{what} {format_list([repr(value) for value in rows[what].unique()])}"
        for what in (*COMPARED_COLUMNS, *PATIENT_COLUMNS)
        if len(rows[what].unique()) > 1
    ]
    lines = format_list([str(line) for line in rows[LINE_COLUMN]])
    times = "twice" if len(rows) == 2 else f"{len(rows)} times"
    others = repeated["image_id"].nunique() - 1
    raise UserError(
        f"{table_path}: {image_id} occurs {times}, in lines {lines}, with "
        + ("; ".join(differs) or "the same values")
        + "; expected one row for each image."
        + (f" The same is true of {others} other image{'s' * (others > 1)}." if others else "")
    )


def suggest_reader(root: Path) -> str:
    """Return the overrides that read a folder by one of its tables; empty if there are none."""
    folders: dict[str, set[str]] = {}
    for path in walk_images(root):
        folders.setdefault(path.stem.lower(), set()).add(path.parent.relative_to(root).as_posix())
    for path in _table_files(root):
        table = _read_small_table(path)
        if table and (words := _as_ham10000(table) or _as_csv(root, table, folders)):
            return " ".join(words)
    return ""


def describe_unread_tables(root: Path) -> tuple[str, ...]:
    """Describe the tables in a folder that name lesions or patients but are not read."""
    notes = []
    for path in _table_files(root):
        table = _read_small_table(path)
        groupings = [name for name in table.names if is_grouping_candidate(name)] if table else []
        if groupings:
            notes.append(
                f"{path.name} has {format_list(groupings)} but is not read; with dataset=csv it "
                "would define which images belong together."
            )
    return tuple(notes)


def build_missing_table_error(root: Path, name: str, key: str) -> UserError:
    """Build the error about a missing table, which ``key`` names, with a suggestion."""
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


def _read_small_table(path: Path) -> Table | None:
    """Read a table for a message; return None if it is large, unreadable or no table."""
    try:
        return read_table(path) if path.stat().st_size <= MAX_TABLE_BYTES else None
    except (UserError, OSError):
        return None


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
