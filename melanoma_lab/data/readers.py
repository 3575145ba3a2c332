"""Readers list the images of a dataset's folder; they open metadata tables but no images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from melanoma_lab.config.compatibility import check_dataset_root
from melanoma_lab.config.schema.data import (
    PATIENT_COLUMNS,
    CsvDataset,
    Dataset,
    FolderDataset,
    Ham10000Dataset,
    Isic9Dataset,
    SyntheticDataset,
)
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import GROUPINGS, describe_columns, find_columns
from melanoma_lab.data.folder_reader import read_class_folders
from melanoma_lab.data.image_files import exclude_files, find_images
from melanoma_lab.data.listing import (
    Listing,
    UnmatchedImages,
    build_listing,
    normalise_group_ids,
    normalise_patient_columns,
)
from melanoma_lab.data.synthetic_classes import sample_patients
from melanoma_lab.data.synthetic_dataset import ensure_dataset
from melanoma_lab.data.table_reader import (
    build_missing_table_error,
    describe_unread_tables,
    read_csv_dataset,
)
from melanoma_lab.data.tables import LINE_COLUMN, ColumnSpec, Table, read_table

#: Pattern of image names in the ISIC archive.
ISIC_ID = re.compile(r"ISIC_\d+", re.IGNORECASE)
#: Facts about an image that a table may contain besides its class.
OPTIONAL_COLUMNS = (*GROUPINGS, "source", *PATIENT_COLUMNS)


def read_listing(
    dataset: Dataset,
    cache: Path,
    progress: ProgressCallback | None = None,
    *,
    patients: bool = False,
) -> Listing:
    """List the images of a configured dataset.

    A table of ``dataset=csv`` defines the dataset: a row without an image is refused.

    Args:
        patients: whether patient metadata are used, and therefore must be valid.

    Raises:
        UserError: the root is missing, empty or a file, or a metadata table is invalid.
    """
    if isinstance(dataset, SyntheticDataset):
        return _read_synthetic(dataset, cache, progress)
    check_dataset_root(dataset)
    root = Path(str(dataset.root)).expanduser()
    if isinstance(dataset, Isic9Dataset):
        return _read_isic9(dataset, root, patients=patients)
    if isinstance(dataset, Ham10000Dataset):
        return _read_ham10000(dataset, root, patients=patients)
    if isinstance(dataset, CsvDataset):
        return read_csv_dataset(dataset, root, patients=patients)
    if isinstance(dataset, FolderDataset):
        tree = read_class_folders(
            root,
            outside_root=dataset.outside_root,
            exclude=dataset.exclude,
            classes=dataset.classes or (),
        )
        return replace(tree, notes=(*tree.notes, *describe_unread_tables(root)))
    raise TypeError(f"Expected a known dataset. Received {type(dataset).__name__}.")


def get_archive_name(image_id: str) -> str:
    """Return the name of an image in a metadata table: ``x`` for ``a/x(1).jpg``."""
    return re.sub(r"\(\d+\)$", "", Path(image_id).stem).strip()


def _read_isic9(dataset: Isic9Dataset, root: Path, *, patients: bool) -> Listing:
    """List the images of the published nine-class folder, with the archive's metadata if any."""
    tree = read_class_folders(
        root,
        outside_root=dataset.outside_root,
        exclude=dataset.exclude,
        classes=dataset.classes or (),
    )
    images = tree.images
    names = [get_archive_name(image_id) for image_id in images["image_id"]]
    if not (root / dataset.metadata).is_file():
        # Files that share an archive id are one photograph; nothing names the lesions.
        images["lesion"] = [name if ISIC_ID.match(name) else "" for name in names]
        return replace(tree, notes=(*tree.notes, *describe_unread_tables(root)))
    table = read_table(root / dataset.metadata)
    found = _find_columns(table, ["image_id", *dataset.diagnosis_columns])
    metadata = _select(table, {"image_id": "image_id"}, found, dataset.diagnosis_columns)
    metadata = normalise_patient_columns(table.path, metadata, needed=patients)
    metadata, changed = normalise_group_ids(metadata)
    metadata = metadata.set_index("image_id")
    metadata = metadata.drop("", errors="ignore")  # a row that names no image
    unmatched = UnmatchedImages(dataset.metadata, missing=_find_missing(metadata.index, names))
    # Files with the same archive id are one photograph, whatever their folders; two files called
    # 1.jpg are not.
    archive_id = [n if ISIC_ID.match(n) or n in metadata.index else "" for n in names]
    groupings = _groupings(found, metadata)
    images["age"] = metadata["age"].reindex(archive_id).to_numpy(float)
    metadata = metadata.drop(columns=["age", LINE_COLUMN]).reindex(archive_id, fill_value="")
    lesion = list(metadata["lesion"])
    images["lesion"] = [known or own for known, own in zip(lesion, archive_id, strict=True)]
    for name in ("patient", "source", "sex", "site"):
        images[name] = metadata[name].to_numpy()
    images["diagnosis"] = [
        _diagnosis([code for code in row if code], label, dataset.diagnoses, dataset.classes)
        for row, label in zip(
            metadata[list(dataset.diagnosis_columns)].itertuples(index=False),
            images["label"],
            strict=True,
        )
    ]
    return build_listing(
        images,
        unmatched=unmatched,
        columns=describe_columns(table, found),
        groupings=groupings,
        notes=(*tree.notes, *changed),
    )


def _diagnosis(
    codes: Sequence[str],
    label: str,
    diagnoses: Mapping[str, Sequence[str]],
    classes: Sequence[str] | None,
) -> str:
    """Return the class of the most trusted code; the label if the code agrees with it."""
    if not codes:
        return ""
    names = diagnoses.get(codes[0], [])
    names = [name for name in names if classes is None or name in classes]
    return label if label in names else next(iter(names), "")


def _read_ham10000(dataset: Ham10000Dataset, root: Path, *, patients: bool) -> Listing:
    """List a flat folder of images with a table of their diagnoses and lesions."""
    table_path = root / dataset.metadata
    if not table_path.is_file():
        raise build_missing_table_error(root, dataset.metadata, "dataset.metadata")
    table = read_table(table_path)
    required = {"image_id": "image_id", "dx": "dx", "lesion": "lesion_id"}
    found = _find_columns(table, ["image_id", "dx"]) | {"lesion": "lesion_id"}
    metadata = _select(table, required, found)
    metadata = normalise_patient_columns(table_path, metadata, needed=patients)
    metadata, changed = normalise_group_ids(metadata)
    # Ages come in steps of five years, and 0 means unknown: 5 of the 39 photographs with age 0
    # show keratoses of old people, but only 1 of the 620 with ages from 5 to 25 years.
    metadata["age"] = metadata["age"].where(metadata["age"] > 0)
    known = {row["image_id"]: row for row in metadata.to_dict("records")}
    unknown = sorted(set(metadata["dx"]) - set(dataset.diagnoses))
    if unknown:
        raise UserError(
            f"{table_path}: dx {format_list(unknown)} is not in dataset.diagnoses "
            f"({format_list(list(dataset.diagnoses), 20)})."
        )
    folder = root / dataset.images if (root / dataset.images).is_dir() else root
    paths = find_images(folder, outside_root=dataset.outside_root, boundary=root)
    image_ids = [path.relative_to(root).as_posix() for path in paths]
    kept, notes = exclude_files(image_ids, dataset.exclude)
    rows, unlisted = [], []
    for image_id, path, keep in zip(image_ids, paths, kept, strict=True):
        if path.stem not in known:
            unlisted += [image_id] if keep else []
        elif keep:
            entry = known[path.stem]
            label = dataset.diagnoses[entry["dx"]]
            facts = {name: entry[name] for name in OPTIONAL_COLUMNS}
            where = {"image_id": image_id, "path": str(path)}
            rows.append({**where, "label": label, "diagnosis": label, **facts})
    if not rows:
        raise UserError(f"{table_path}: none of its image_ids is the name of an image in {folder}.")
    missing = _find_missing(known, (get_archive_name(row["image_id"]) for row in rows))
    notes += (*changed, *_describe_repeated([row["image_id"] for row in rows]))
    return build_listing(
        rows,
        unmatched=UnmatchedImages(dataset.metadata, missing, tuple(sorted(unlisted))),
        columns=describe_columns(table, found),
        groupings=_groupings(found, metadata),
        notes=notes,
    )


def _describe_repeated(image_ids: Sequence[str]) -> tuple[str, ...]:
    """Describe files of one name in several folders, as if an archive was unpacked twice."""
    of_name: dict[str, list[str]] = {}
    for image_id in image_ids:
        of_name.setdefault(Path(image_id).stem, []).append(image_id)
    doubled = [same for same in of_name.values() if len(same) > 1]
    if not doubled:
        return ()
    return (f"{len(doubled)} images occur more than once, such as {format_list(doubled[0])}.",)


def _find_missing(named: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    """Return the names in a metadata table that no image has, sorted."""
    return tuple(sorted(set(named) - {""} - set(found)))


def _read_synthetic(
    dataset: SyntheticDataset, cache: Path, progress: ProgressCallback | None
) -> Listing:
    """List the images of the synthetic dataset; draw it into the cache first if necessary."""
    root = ensure_dataset(
        cache,
        classes=dataset.classes or (),
        lesions=dataset.lesions,
        image_size=dataset.image_size,
        seed=dataset.seed,
        progress=progress,
    )
    names = {name: ColumnSpec(name) for name in ("image_id", "label", "source")}
    table = read_table(root / "metadata.csv").select({**names, "lesion": ColumnSpec("lesion_id")})
    table["image_id"] = "images/" + table["image_id"] + ".png"
    table["path"] = [str(root / image_id) for image_id in table["image_id"]]
    table["diagnosis"] = table["label"]
    patients = sample_patients(list(table["lesion"]), list(table["label"]), dataset.seed)
    return build_listing(table.join(patients), groupings={"lesion": "lesion_id"})


def _find_columns(table: Table, taken: Sequence[str]) -> dict[str, str]:
    """Find the columns of facts about the images in a table of fixed format."""
    return find_columns(table, dict.fromkeys(OPTIONAL_COLUMNS), taken, configurable=False)


def _select(
    table: Table, required: Mapping[str, str], found: Mapping[str, str], others: Sequence[str] = ()
) -> pd.DataFrame:
    """Select columns of a metadata table; refuse images with several rows.

    Missing ``OPTIONAL_COLUMNS`` become empty.
    """
    columns = {what: ColumnSpec(found.get(what, "")) for what in OPTIONAL_COLUMNS}
    columns |= {name: ColumnSpec(name, required=False) for name in others}
    columns |= {what: ColumnSpec(name) for what, name in required.items()}
    selected = table.select(columns)
    repeated = selected.loc[selected["image_id"].duplicated(), "image_id"]
    if len(repeated):
        image_id = repeated.iloc[0]
        lesions = selected.loc[selected["image_id"] == image_id, "lesion"].unique()
        differs = f", with lesion {format_list(sorted(lesions))}" if len(lesions) > 1 else ""
        raise UserError(
            f"{table.path}: {image_id} occurs twice{differs}; expected one row for each image."
        )
    return selected


def _groupings(found: Mapping[str, str], metadata: pd.DataFrame) -> dict[str, str]:
    """Map ``lesion`` and ``patient`` to their columns, if these have any values."""
    return {
        what: found[what] for what in GROUPINGS if what in found and (metadata[what] != "").any()
    }
