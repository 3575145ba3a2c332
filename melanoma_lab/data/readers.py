"""Readers: from a dataset's folder to a table of its images; no file is opened but metadata.

Every reader returns a table with one row an image, sorted by image_id:

========== =====================================================================================
image_id   path relative to the root, with ``/``
path       where the file lies
label      class name as the dataset has it
diagnosis  class name that the metadata's diagnosis stands for; empty where it says nothing
lesion     what photographs of one lesion share; empty where unknown
source     where the photograph comes from; empty where unknown
published  ``train``, ``val`` or ``test`` where the dataset was published divided; else empty
age        of the patient, float64 years; NaN where unknown
sex        of the patient; empty where unknown
site       where on the body; empty where unknown
========== =====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.config.schema.dataset import (
    CsvDataset,
    Dataset,
    FolderDataset,
    Ham10000Dataset,
    Isic9Dataset,
    SyntheticDataset,
)
from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS
from melanoma_lab.data.csv_reader import PUBLISHED, read_csv
from melanoma_lab.data.files import find_images
from melanoma_lab.data.patient_columns import with_patients
from melanoma_lab.data.root import check_root
from melanoma_lab.data.synthetic import ensure_dataset
from melanoma_lab.data.synthetic.patients import patients_of
from melanoma_lab.data.tables import LINE, Column, read_table
from melanoma_lab.errors import UserError
from melanoma_lab.progress import Progress

WORDS = ("image_id", "path", "label", "diagnosis", "lesion", "source", "published", "sex", "site")
COLUMNS = (*WORDS, "age")
#: How the ISIC archive names an image.
ARCHIVE_ID = re.compile(r"ISIC_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Unmatched:
    """Where a dataset's metadata table and its folder do not name the same images.

    Attributes:
        table: the table's file name; empty where the dataset has none.
        missing: names in the table without an image in the folder, sorted.
        unlisted: images, by image_id, that are left out because the table does not name them.
    """

    table: str = ""
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def read_dataset(dataset: Dataset, cache: Path, progress: Progress | None = None) -> pd.DataFrame:
    """List the images of a configured dataset, as ``read_listing`` does."""
    return read_listing(dataset, cache, progress)[0]


def read_listing(
    dataset: Dataset, cache: Path, progress: Progress | None = None, *, patients: bool = False
) -> tuple[pd.DataFrame, Unmatched]:
    """List the images of a configured dataset, and where its metadata table does not fit them.

    A table of ``dataset=csv`` is the dataset itself: a row without an image is refused.

    Args:
        dataset: the dataset's configuration.
        cache: folder for what the lab draws itself.
        progress: told how far the drawing of a synthetic dataset has come.
        patients: whether what a table says of patients counts, and so must be right.

    Returns:
        A table with the columns of this module's description, sorted by image_id; and what the
        metadata table, where there is one, and the folder do not both have.

    Raises:
        UserError: the root is missing, empty or a file, or a metadata table does not fit.
    """
    if isinstance(dataset, SyntheticDataset):
        return _read_synthetic(dataset, cache, progress), Unmatched()
    check_root(dataset)
    root = Path(str(dataset.root)).expanduser()
    if isinstance(dataset, Isic9Dataset):
        return _read_isic9(dataset, root)
    if isinstance(dataset, Ham10000Dataset):
        return _read_ham10000(dataset, root, patients=patients)
    if isinstance(dataset, CsvDataset):
        return _table(read_csv(dataset, root, patients=patients)), Unmatched()
    if isinstance(dataset, FolderDataset):
        return read_tree(root, outside_root=dataset.outside_root), Unmatched()
    raise TypeError(f"Expected a known dataset. Received {type(dataset).__name__}.")


def archive_name(image_id: str) -> str:
    """The name that a metadata table has for an image: ``a/x(1).jpg`` is ``x``."""
    return re.sub(r"\(\d+\)$", "", Path(image_id).stem).strip()


def read_tree(root: Path, *, outside_root: bool = False) -> pd.DataFrame:
    """A tree of class folders: an image's label is the name of the folder that it lies in.

    Args:
        root: the folder.
        outside_root: follow links that lead out of it.

    Raises:
        UserError: there are no images, some lie in no class folder, or a folder holds both images
            and folders of images, so that either could be the class.
    """
    rows: list[dict[str, Any]] = []
    paths = find_images(root, outside_root=outside_root)
    _refuse_nested(root, {path.parent for path in paths})
    for path in paths:
        image_id = path.relative_to(root).as_posix()
        *parents, _ = image_id.split("/")
        published = next((PUBLISHED[p.lower()] for p in parents if p.lower() in PUBLISHED), "")
        if not parents or parents[-1].lower() in PUBLISHED:
            raise UserError(
                f"dataset.root={root}: {image_id} lies in no class folder; "
                "expected <class>/<image>, or Train/<class>/<image> and Test/<class>/<image>."
            )
        rows.append(_row(image_id, path, parents[-1], published=published))
    return _table(rows)


def _refuse_nested(root: Path, folders: Collection[Path]) -> None:
    """No folder of images lies in another: which of the two would be the class?"""
    for folder in sorted(folders):
        outer = next((f for f in folder.parents if f in folders and f != root), None)
        if outer is not None:
            inner = folder.relative_to(root).as_posix()
            raise UserError(
                f"dataset.root={root}: {outer.relative_to(root).as_posix()} holds images and, in "
                f"{inner}, a folder of images; expected either, so that the class is plain."
            )


def _read_isic9(dataset: Isic9Dataset, root: Path) -> tuple[pd.DataFrame, Unmatched]:
    """The published nine-class folder, with what the archive says of its images."""
    table = read_tree(root, outside_root=dataset.outside_root)
    names = [archive_name(image_id) for image_id in table["image_id"]]
    if not (root / dataset.metadata).is_file():
        table["lesion"] = [name if ARCHIVE_ID.match(name) else "" for name in names]
        return table, Unmatched()
    optional = ("lesion_id", "source", *dataset.diagnosis_columns)
    metadata = _read_metadata(root / dataset.metadata, ["image_id"], optional)
    metadata = metadata.drop(columns=LINE).set_index("image_id")
    unmatched = Unmatched(dataset.metadata, missing=_missing(metadata.index, names))
    # Files that share an archive id are one photograph, whatever folder they lie in; files that
    # are both called 1.jpg are not.
    archive_id = [n if ARCHIVE_ID.match(n) or n in metadata.index else "" for n in names]
    table["lesion"] = archive_id
    metadata = metadata.reindex(archive_id, fill_value="")
    lesion = metadata["lesion_id"].to_numpy()
    table["lesion"] = [known or own for known, own in zip(lesion, archive_id, strict=True)]
    table["source"] = metadata["source"].to_numpy()
    codes = metadata[list(dataset.diagnosis_columns)]
    table["diagnosis"] = [
        _diagnosis([code for code in row if code], label, dataset.diagnoses, dataset.classes)
        for row, label in zip(codes.itertuples(index=False), table["label"], strict=True)
    ]
    return table, unmatched


def _diagnosis(
    codes: Sequence[str],
    label: str,
    diagnoses: Mapping[str, Sequence[str]],
    classes: Sequence[str] | None,
) -> str:
    """The class that the most trusted code stands for; the label where the code covers it."""
    if not codes:
        return ""
    names = diagnoses.get(codes[0], [])
    names = [name for name in names if classes is None or name in classes]
    return label if label in names else next(iter(names), "")


def _read_ham10000(
    dataset: Ham10000Dataset, root: Path, *, patients: bool
) -> tuple[pd.DataFrame, Unmatched]:
    """A flat folder of images and a table with diagnosis and lesion of each."""
    table_path = root / dataset.metadata
    if not table_path.is_file():
        raise UserError(f"dataset.root={root}: no {dataset.metadata} in it; it says what is what.")
    metadata = _read_metadata(
        table_path, ["image_id", "lesion_id", "dx"], ("age", "sex", "localization")
    )
    metadata = metadata.rename(columns={"localization": "site"})
    metadata = with_patients(table_path, metadata, needed=patients)
    # Ages come in steps of five years, and 0 is not the youngest: 5 of its 39 photographs show
    # keratoses of the old, which of the 620 from 5 to 25 years one does.
    metadata["age"] = metadata["age"].where(metadata["age"] > 0)
    known = {row["image_id"]: row for row in metadata.to_dict("records")}
    diagnosis = dict(zip(metadata["image_id"], metadata["dx"], strict=True))
    lesion = dict(zip(metadata["image_id"], metadata["lesion_id"], strict=True))
    unknown = sorted(set(diagnosis.values()) - set(dataset.diagnoses))
    if unknown:
        raise UserError(
            f"{table_path}: dx {', '.join(unknown)} is not in dataset.diagnoses "
            f"({', '.join(dataset.diagnoses)})."
        )
    folder = root / dataset.images if (root / dataset.images).is_dir() else root
    rows, unlisted = [], []
    for path in find_images(folder, outside_root=dataset.outside_root, boundary=root):
        image_id = path.relative_to(root).as_posix()
        if path.stem not in diagnosis:
            unlisted.append(image_id)
            continue
        label = dataset.diagnoses[diagnosis[path.stem]]
        of_patient = {name: known[path.stem][name] for name in PATIENT_COLUMNS}
        rows.append(
            _row(image_id, path, label, diagnosis=label, lesion=lesion[path.stem], **of_patient)
        )
    if not rows:
        raise UserError(f"{table_path}: none of its image_ids is the name of an image in {folder}.")
    table = _table(rows)
    missing = _missing(diagnosis, map(archive_name, table["image_id"]))
    return table, Unmatched(dataset.metadata, missing, tuple(sorted(unlisted)))


def _missing(named: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    """Names in a metadata table that no image has, sorted."""
    return tuple(sorted(set(named) - {""} - set(found)))


def _read_synthetic(
    dataset: SyntheticDataset, cache: Path, progress: Progress | None
) -> pd.DataFrame:
    """The dataset that the program draws; it lies in the cache like any downloaded one."""
    root = ensure_dataset(
        cache,
        classes=dataset.classes or (),
        lesions=dataset.lesions,
        image_size=dataset.image_size,
        seed=dataset.seed,
        progress=progress,
    )
    metadata = _read_metadata(root / "metadata.csv", ["image_id", "lesion_id", "label", "source"])
    table = pd.DataFrame(
        {
            "image_id": "images/" + metadata["image_id"] + ".png",
            "label": metadata["label"],
            "diagnosis": metadata["label"],
            "lesion": metadata["lesion_id"],
            "source": metadata["source"],
        }
    )
    table["path"] = [str(root / image_id) for image_id in table["image_id"]]
    patients = patients_of(list(table["lesion"]), list(table["label"]), dataset.seed)
    return _table(table.join(patients))


def _read_metadata(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Columns of a table as text, empty cells as empty strings, with lines; one row an image."""
    columns = {name: Column(name) for name in required}
    columns |= {name: Column(name, required=False) for name in optional}
    table = read_table(path, columns)
    repeated = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(repeated):
        image_id = repeated.iloc[0]
        rows = table[table["image_id"] == image_id]
        lesions = rows["lesion_id"].unique() if "lesion_id" in rows else []
        differs = f", with lesion {' and '.join(lesions)}" if len(lesions) > 1 else ""
        raise UserError(f"{path}: {image_id} is there twice{differs}; expected a row an image.")
    return table


def _row(image_id: str, path: Path, label: str, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(WORDS, "")
    return {**unknown, "image_id": image_id, "path": str(path), "label": label, **known}


def _table(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table of COLUMNS, sorted; what a reader does not know is empty."""
    found = pd.DataFrame(rows)
    ages = found["age"].to_numpy(float) if "age" in found.columns else np.nan
    table = found.reindex(columns=list(WORDS), fill_value="").assign(age=ages)
    return table.sort_values("image_id", ignore_index=True)
