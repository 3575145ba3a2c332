"""Prepare a dataset for training: read, decode, audit, label, group and split its images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.audit.dataset_audit import audit_images
from melanoma_lab.audit.findings import Findings, describe_unresolved
from melanoma_lab.audit.inspection import inspect_files
from melanoma_lab.audit.near_duplicates import IDENTICAL
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import (
    PATIENT_COLUMNS,
    Dataset,
    GroupingRule,
    Isic9Dataset,
    LabelSource,
    PatientMetadata,
    Resize,
    Split,
)
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_text
from melanoma_lab.core.formatting import slugify
from melanoma_lab.data.cache import compute_file_digests, drop_unreadable, load_pixels
from melanoma_lab.data.image_files import describe_outside_links
from melanoma_lab.data.labels import check_class_names, resolve_labels
from melanoma_lab.data.listing import Listing, UnmatchedImages
from melanoma_lab.data.patient_metadata import PatientData, encode_patients
from melanoma_lab.data.readers import read_listing
from melanoma_lab.data.split import TRAIN, assign_photographs, group_images, split_images
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit

MANIFEST_COLUMNS = (
    "image_id",
    "path",
    "label",
    "group",
    "source",
    "split",
    "digest",
    "identical",
    "photograph",
    "lesion",
    "patient",
    "diagnosis",
    "published",
    *PATIENT_COLUMNS,
)


@dataclass(frozen=True)
class PreparedData:
    """A dataset that is read, decoded, labelled, grouped and split.

    Attributes:
        manifest: table with a row for each image, sorted by image_id, and the columns
            ``MANIFEST_COLUMNS``.
        classes: class names in the order of the network's outputs.
        positive_class: slug of the positive class, or None.
        pixels: cached pixels, uint8, shape (m, size, size, 3), memory-mapped.
        resize: how images were made square.
        rows: int64, shape (n,): row in ``pixels`` of each row of the manifest.
        labels: int64, shape (n,): class index of each row of the manifest.
        digest: hash of the images' ids, contents and labels.
        split_hash: hash of the assignment of images to splits.
        protocol: ``grouped``; ``ungrouped`` if no column names lesions or patients; ``leaking`` if
            a group of images that belong together is in more than one split.
        grouped_by: columns of a table that name lesions or patients.
        columns: line of text that says which columns of a table are used; empty without a table.
        notes: sentences about images that were relabelled or left out.
        findings: findings of the audit in the dataset as it was published.
        unresolved: line of text about problems that the run does not resolve; empty if none.
        patients: encoded patient metadata, if ``metadata`` is configured.
    """

    manifest: pd.DataFrame
    classes: tuple[str, ...]
    positive_class: str | None
    pixels: NDArray[np.uint8]
    resize: Resize
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    digest: str
    split_hash: str
    protocol: str
    grouped_by: tuple[str, ...]
    columns: str
    notes: tuple[str, ...]
    findings: Findings
    unresolved: str
    patients: PatientData | None = None

    @property
    def slugs(self) -> tuple[str, ...]:
        """Class names as they are written in the names of columns and metrics."""
        return tuple(slugify(name) for name in self.classes)

    def select_split(self, split: str) -> NDArray[np.int64]:
        """Return the positions of a split's images in the manifest; int64, sorted."""
        return np.flatnonzero(self.manifest["split"].to_numpy() == split)

    def select_splits(self, splits: Sequence[str] | None) -> NDArray[np.int64]:
        """Return the positions of several splits' images in the manifest, sorted; None: all."""
        if splits is None:
            return np.arange(len(self.manifest))
        return np.flatnonzero(self.manifest["split"].isin(list(splits)).to_numpy())

    def training_split(self) -> TrainingSplit:
        """Return the training images, the only ones that weights may be fitted to."""
        train = self.select_split(TRAIN)
        return TrainingSplit(
            pixels=self.pixels,
            rows=self.rows[train],
            labels=self.labels[train],
            image_ids=tuple(self.manifest["image_id"].iloc[train]),
            digests=tuple(self.manifest["digest"].iloc[train]),
            class_names=self.classes,
            metadata=None if self.patients is None else self.patients.numbers[train],
        )


#: The datasets that this process prepared last, by a digest of everything that they depend on.
_prepared: dict[str, PreparedData] = {}
#: Number of datasets that are kept: enough for the folds of most studies.
MAX_PREPARED = 10


def prepare_data(
    config: Config, *, cache: Path, threads: int, progress: ProgressCallback | None = None
) -> PreparedData:
    """Prepare a configured dataset: split manifest, decoded pixels and encoded patient metadata.

    Later runs in the same process reuse the result if their configuration of the dataset and the
    split is the same, and the folder still contains the same files with the same content.

    Raises:
        UserError: the dataset, its labels, its patient metadata or the split cannot be used as
            configured.
    """
    uses_metadata = isinstance(config.metadata, PatientMetadata)
    data = prepare_images(
        config.dataset,
        config.split,
        cache=cache,
        threads=threads,
        patients=uses_metadata,
        progress=progress,
    )
    patients = encode_patients(data.manifest, config.metadata)
    notes = (*data.notes, *(patients.notes if patients else ()))
    return replace(data, patients=patients, notes=notes)


def prepare_images(
    dataset: Dataset,
    split: Split,
    *,
    cache: Path,
    threads: int,
    patients: bool,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """Prepare a configured dataset without encoding patient metadata.

    The manifest contains patient metadata as words and ages in years; with ``patients``, the
    table's columns must be valid.

    Raises:
        UserError: the dataset, its labels or the split cannot be used as configured.
    """
    listing = read_listing(dataset, cache, progress, patients=patients)
    images = listing.images
    images["digest"] = compute_file_digests(list(images["path"]), threads)
    description = (listing.unmatched, listing.grouped_by, listing.columns, listing.notes)
    key = _digest(repr(dataset), repr(split), str(cache.absolute()), repr(description))
    key += _digest(pd.util.hash_pandas_object(images, index=False).tolist())
    if key not in _prepared:
        data = _prepare(dataset, split, listing, cache=cache, threads=threads, progress=progress)
        while len(_prepared) >= MAX_PREPARED:
            _prepared.pop(next(iter(_prepared)))  # the oldest
        _prepared[key] = data
    data = _prepared[key]
    return replace(data, manifest=data.manifest.copy())


def _prepare(
    dataset: Dataset,
    split: Split,
    listing: Listing,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None,
) -> PreparedData:
    """Decode, audit, label, group and split the images of a listing with digests of their files."""
    manifest = listing.images
    files = (list(manifest["path"]), list(manifest["digest"]))
    pixels = load_pixels(
        *files,
        size=dataset.image_size,
        resize=dataset.resize,
        cache=cache,
        threads=threads,
        progress=progress,
    )
    inspection = inspect_files(*files, cache=cache, threads=threads, progress=progress)
    findings, _ = audit_images(listing, inspection, name=dataset.name, classes=dataset.classes)
    pairs = inspection.pairs
    identical = pairs.loc[pairs["kind"] == IDENTICAL]
    manifest["identical"] = assign_photographs(list(manifest["digest"]), identical)
    manifest["photograph"] = assign_photographs(list(manifest["digest"]), pairs)
    # Both, so that training never uses images that the audit reports, at any image size.
    unreadable = inspection.unreadable | pixels.unreadable
    manifest, notes = drop_unreadable(manifest, unreadable, dataset)
    try:
        resolved = resolve_labels(
            manifest,
            labels=dataset.labels if isinstance(dataset, Isic9Dataset) else LabelSource.folder,
            conflicts=dataset.conflicts,
            classes=dataset.classes,
        )
        check_class_names(resolved.classes, dataset.positive_class)
        manifest = resolved.manifest.assign(group=group_images(resolved.manifest, dataset.groups))
        manifest, left_out = split_images(manifest, split)
    except UserError as error:
        # Notes about the listing may explain the cause.
        before = " ".join(filter(None, [listing.columns, *listing.notes]))
        raise UserError(f"{error} {before}".strip()) from error
    manifest = manifest.loc[:, list(MANIFEST_COLUMNS)]
    protocol = _determine_protocol(manifest, listing.grouped_by)
    index = {name: i for i, name in enumerate(resolved.classes)}
    return PreparedData(
        manifest=manifest,
        classes=resolved.classes,
        positive_class=slugify(dataset.positive_class) if dataset.positive_class else None,
        pixels=pixels.images,
        resize=dataset.resize,
        rows=np.array([pixels.row[digest] for digest in manifest["digest"]], dtype=np.int64),
        labels=np.array([index[label] for label in manifest["label"]], dtype=np.int64),
        digest=_digest(
            [*manifest[["image_id", "digest", "label"]].itertuples(index=False, name=None)],
            resolved.classes,
        ),
        split_hash=compute_split_hash(manifest),
        protocol=protocol,
        grouped_by=listing.grouped_by,
        columns=listing.columns,
        notes=(
            *listing.notes,
            *_describe_unmatched(listing.unmatched),
            *_describe_links(dataset),
            *notes,
            *resolved.notes,
            *left_out,
        ),
        findings=findings,
        unresolved=describe_unresolved(findings, dataset, protocol),
    )


def _describe_unmatched(unmatched: UnmatchedImages) -> Iterator[str]:
    """Describe images that only the table or only the folder has."""
    missing, unlisted = unmatched.missing, unmatched.unlisted
    if missing:
        yield f"{unmatched.table} names images that do not exist: {_format_example(missing)}."
    if unlisted:
        example = _format_example(unlisted)
        yield f"Left out, because {unmatched.table} does not name them: {example}."


def _describe_links(dataset: Dataset) -> list[str]:
    """Describe links out of the dataset's folder that were not followed."""
    if dataset.root is None or dataset.outside_root:
        return []
    return describe_outside_links(Path(dataset.root).expanduser())


def _format_example(names: Sequence[str]) -> str:
    """Format names as a count and an example; a single name alone."""
    return names[0] if len(names) == 1 else f"{len(names)}, such as {names[0]}"


def _determine_protocol(manifest: pd.DataFrame, grouped_by: Sequence[str]) -> str:
    """Return ``leaking`` if a group is in several splits, else ``grouped`` or ``ungrouped``."""
    grouped = manifest.assign(group=group_images(manifest, GroupingRule.all))
    group_splits = grouped.drop_duplicates(["group", "split"])
    if group_splits["group"].duplicated().any():
        return "leaking"
    return "grouped" if grouped_by else "ungrouped"


def compute_split_hash(table: pd.DataFrame) -> str:
    """Return a hash of the assignment of images to splits.

    The table has the columns image_id and split and is sorted by image_id.
    """
    return _digest([*table[["image_id", "split"]].itertuples(index=False, name=None)])


def _digest(*parts: object) -> str:
    """Return a short SHA-256, 16 hexadecimal digits, of values that JSON can hold."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return hash_text(text, 16)
