"""Reader of ``dataset=csv``: a table with the path and label of every image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.data import PATIENT_COLUMNS, CsvDataset
from melanoma_lab.core.errors import UserError, suggest_similar
from melanoma_lab.core.formatting import format_count, format_list
from melanoma_lab.data.columns import (
    GROUPINGS,
    check_grouping_ids,
    describe_columns,
    find_columns,
)
from melanoma_lab.data.exclusion import exclude_files
from melanoma_lab.data.image_files import check_inside, find_table_file, suggest_file
from melanoma_lab.data.listing import Listing, build_listing
from melanoma_lab.data.reader_suggestion import build_missing_table_error
from melanoma_lab.data.table_normalisation import normalise_group_ids, normalise_patient_columns
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


def read_csv_dataset(dataset: CsvDataset, root: Path, *, patients: bool = False) -> Listing:
    """List the images of a dataset by its table.

    Args:
        dataset: the dataset's configuration.
        root: the folder of the table and the images.
        patients: whether patient metadata are used, and therefore must be valid.

    Raises:
        UserError: the table is invalid; the message names lines and columns.
    """
    table_path = root / dataset.table
    if not table_path.is_file():
        raise build_missing_table_error(root, dataset.table, "dataset.table")
    table = read_table(table_path, dataset.encoding)
    found = _find_columns(dataset, table)
    recognised = {
        what: name for what, name in found.items() if getattr(dataset.columns, what) is None
    }
    images = table.select(_columns(dataset, found))
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


def _find_columns(dataset: CsvDataset, table: Table) -> dict[str, str]:
    """Map the facts about the images to the names of their columns, if there are any."""
    columns = dataset.columns
    chosen = {name: value for name, value in vars(columns).items() if name not in REQUIRED}
    return find_columns(table, chosen, [columns.image, columns.label])


def _columns(dataset: CsvDataset, found: Mapping[str, str]) -> dict[str, ColumnSpec]:
    """Specify the columns to select from the table."""
    return {
        what: ColumnSpec(
            name if what in REQUIRED else found.get(what, ""), f"dataset.columns.{what}"
        )
        for what, name in vars(dataset.columns).items()
    }


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
    others = repeated["image_id"].nunique() - 1
    raise UserError(
        f"{table_path}: {image_id} occurs {_times(len(rows))}, in lines {lines}, with "
        + ("; ".join(differs) or "the same values")
        + "; expected one row for each image."
        + (f" The same is true of {others} other image{'s' * (others > 1)}." if others else "")
    )


def _times(n: int) -> str:
    return "twice" if n == 2 else f"{n} times"
