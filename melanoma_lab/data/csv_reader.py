"""``dataset=csv``: a table says of every image where it lies and what it shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.dataset import CsvDataset
from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS
from melanoma_lab.data.files import IMAGE_SUFFIXES, check_inside
from melanoma_lab.data.patient_columns import with_patients
from melanoma_lab.data.tables import LINE, Column, read_table
from melanoma_lab.errors import UserError, nearest

#: Words that say which part of a published split an image belongs to.
PUBLISHED: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
#: What a table may say, called so where ``dataset.columns`` does not say how.
OPTIONAL: Final = ("lesion", "source", "diagnosis", "split", *PATIENT_COLUMNS)
#: Lines named in a message at most.
N_SHOWN: Final = 5


def read_csv(dataset: CsvDataset, root: Path, *, patients: bool = False) -> pd.DataFrame:
    """Read the table of a dataset.

    Args:
        dataset: its configuration.
        root: the folder that holds the table and the images.
        patients: whether what it says of patients counts.

    Returns:
        One row an image with the str columns image_id (path relative to the root, with ``/``),
        path, label, lesion, source, diagnosis and published (train, val, test or empty), and of
        the patient age (float), sex and site.

    Raises:
        UserError: the table does not fit; the message names lines and columns.
    """
    table_path = root / dataset.table
    if not table_path.is_file():
        raise UserError(f"dataset.root={root}: no {dataset.table} in it; it says what is what.")
    table = read_table(table_path, _columns(dataset), dataset.encoding)
    if table.empty:
        raise UserError(f"{table_path}: no images in it.")
    _refuse(table_path, table[LINE][table["image"] == ""], "name no image")
    _refuse(table_path, table[LINE][table["label"] == ""], "have no label")
    table = with_patients(table_path, table, needed=patients)
    table["published"] = _published(table_path, table)
    table["path"] = list(_paths(dataset, root, table_path, table))
    table["image_id"] = [_image_id(path, root) for path in table["path"]]
    _refuse_repeated(table_path, table)
    return table.drop(columns=["image", "split", LINE])


def _columns(dataset: CsvDataset) -> dict[str, Column]:
    """What is looked for under which name, and whether it must be there."""
    chosen = dataset.columns
    columns = {
        "image": Column(chosen.image, "dataset.columns.image"),
        "label": Column(chosen.label, "dataset.columns.label"),
    }
    named = {name for name in vars(chosen).values() if name is not None}
    for what in OPTIONAL:
        name: str | None = getattr(chosen, what)
        # A site may be a clinic: a column that is named as something else is not looked for again.
        usual = "" if what in named else what
        columns[what] = Column(name or usual, f"dataset.columns.{what}", required=name is not None)
    return columns


def _refuse(table_path: Path, lines: Iterable[int], what: str) -> None:
    wrong = list(lines)
    if wrong:
        shown = ", ".join(map(str, wrong[:N_SHOWN])) + (" ..." if len(wrong) > N_SHOWN else "")
        raise UserError(f"{table_path}: {len(wrong)} lines {what}: {shown}.")


def _published(table_path: Path, table: pd.DataFrame) -> pd.Series:
    words = table["split"].str.lower()
    unknown = table.loc[(words != "") & ~words.isin(list(PUBLISHED)), ["split", LINE, "image"]]
    if len(unknown):
        word, line, image = unknown.iloc[0]
        close = nearest(word.lower(), PUBLISHED)
        raise UserError(
            f"{table_path}: split {word} of {image} (line {line}); expected train, val, test or "
            "nothing." + (f" {close}" if close.startswith("Did") else "")
        )
    return words.map(PUBLISHED).fillna("")


def _paths(dataset: CsvDataset, root: Path, table_path: Path, table: pd.DataFrame) -> Iterator[str]:
    """Where each image lies; all that are not there are refused together."""
    inside, checked = root.resolve(), set[Path]()
    missing: list[tuple[int, str]] = []
    for name, line in zip(table["image"], table[LINE], strict=True):
        path = _existing(root / dataset.images, name)
        if path is None:
            missing.append((line, name))
            continue
        if not dataset.outside_root and (path.is_symlink() or path.parent not in checked):
            check_inside(path, inside)
            checked.add(path.parent)
        yield str(path)
    if missing:
        shown = ", ".join(f"{name} (line {line})" for line, name in missing[:N_SHOWN])
        more = f" and {len(missing) - N_SHOWN} more" if len(missing) > N_SHOWN else ""
        raise UserError(
            f"{table_path}: {shown}{more}: no file below {root / dataset.images}. Paths in the "
            "table are relative to dataset.root/dataset.images."
        )


def _existing(folder: Path, name: str) -> Path | None:
    """The file that a table means: perhaps with Windows's separators, perhaps without an ending."""
    for spelt in dict.fromkeys((name, PureWindowsPath(name).as_posix())):
        path = folder / spelt
        guesses = [] if path.suffix.lower() in IMAGE_SUFFIXES else sorted(IMAGE_SUFFIXES)
        for ending in ("", *guesses):
            if _is_file(candidate := Path(f"{path}{ending}")):
                return candidate
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _image_id(path: str, root: Path) -> str:
    """The path below the root without detours; whole where it lies elsewhere."""
    plain, base = (Path(os.path.normpath(p)) for p in (path, root))
    return (plain.relative_to(base) if plain.is_relative_to(base) else plain).as_posix()


def _refuse_repeated(table_path: Path, table: pd.DataFrame) -> None:
    """An image has one row; where it has two, say what they differ in."""
    repeated = table[table["image_id"].duplicated(keep=False)]
    if repeated.empty:
        return
    image_id = repeated["image_id"].iloc[0]
    rows = repeated[repeated["image_id"] == image_id]
    differs = [
        f"{what} {' and '.join(map(repr, rows[what].unique()))}"
        for what in ("label", "lesion", "diagnosis", "source", "published", *PATIENT_COLUMNS)
        if len(rows[what].unique()) > 1
    ]
    lines = " and ".join(map(str, rows[LINE]))
    others = repeated["image_id"].nunique() - 1
    raise UserError(
        f"{table_path}: {image_id} is there twice, in lines {lines}, with "
        + ("; ".join(differs) or "the same values")
        + "; expected a row an image."
        + (f" So are {others} others." if others else "")
    )
