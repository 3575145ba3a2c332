"""The data's way up to training: read, decode, label, group, split."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.audit.dataset_audit import audit_images
from melanoma_lab.audit.findings import Findings
from melanoma_lab.audit.inspection import inspect_files
from melanoma_lab.audit.near_duplicates import IDENTICAL
from melanoma_lab.audit.unresolved_findings import describe_unresolved
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.dataset import (
    Dataset,
    GroupingRule,
    Isic9Dataset,
    LabelSource,
    Resize,
)
from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS, PatientMetadata
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.data.grouping import assign_photographs, group_images
from melanoma_lab.data.image_files import describe_outside_links
from melanoma_lab.data.labels import resolve_labels
from melanoma_lab.data.listing import Listing, UnmatchedImages
from melanoma_lab.data.patient_metadata import PatientData, encode_patients
from melanoma_lab.data.pixel_cache import compute_file_digests, load_pixels
from melanoma_lab.data.readers import read_listing
from melanoma_lab.data.split import TRAIN, split_images
from melanoma_lab.data.unreadable import drop_unreadable
from melanoma_lab.input_pipeline.training_split import TrainingSplit

#: MLflow takes 250 characters for a metric, test/sensitivity/ included.
MAX_SLUG_LENGTH = 200

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
        manifest: one row an image, sorted by image_id, with MANIFEST_COLUMNS.
        classes: class names in the order of the network's outputs.
        melanoma: the slug of the melanoma class, or None.
        pixels: uint8, shape (m, size, size, 3); the decode cache, memory-mapped.
        resize: what has become of the images' proportions there.
        rows: int64, shape (n,); where each row of the manifest lies in ``pixels``.
        labels: int64, shape (n,); class index of each row of the manifest.
        digest: of ids, contents and labels.
        split_hash: of which image is in which split.
        protocol: ``grouped``; ``ungrouped`` where nothing names lesions or patients; ``leaking``
            where images that belong together are separated.
        grouped_by: the columns of a table that name lesions or patients.
        columns: which columns of the table count, in one line; empty where there is no table.
        notes: what was relabelled or left out, a sentence each.
        findings: what the audit found in the dataset as it was published.
        unresolved: what of it the run leaves as it is, in one line; empty where nothing.
        patients: what is known of them, where ``metadata`` asks for it.
    """

    manifest: pd.DataFrame
    classes: tuple[str, ...]
    melanoma: str | None
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
        """Class names as they stand in column and metric names."""
        return tuple(slugify(name) for name in self.classes)

    def select_split(self, split: str) -> NDArray[np.int64]:
        """Positions in the manifest of a split's images; int64, sorted."""
        return np.flatnonzero(self.manifest["split"].to_numpy() == split)

    def select_splits(self, splits: Sequence[str] | None) -> NDArray[np.int64]:
        """Positions in the manifest of the images of some splits, sorted; None: of all."""
        if splits is None:
            return np.arange(len(self.manifest))
        return np.flatnonzero(self.manifest["split"].isin(list(splits)).to_numpy())

    def training_split(self) -> TrainingSplit:
        """The images that weights may be fitted to, and nothing else."""
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


#: What a process prepared last, by all that it depends on; as many as a study has folds, mostly.
_prepared: dict[str, PreparedData] = {}
MAX_PREPARED = 10


def slugify(name: str) -> str:
    """A class name in lower case with underscores, as column and metric names have it.

    Letters and digits of every script stay, as MLflow takes them.
    """
    # Composed letters: macOS takes é apart in file names.
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name).lower()).strip("_")


def prepare_data(
    config: Config, *, cache: Path, threads: int, progress: ProgressCallback | None = None
) -> PreparedData:
    """Take a configured dataset all the way to a split manifest and decoded pixels.

    Within a process, a study's later runs get what the first one prepared, if they ask for the same
    and the folder still lists the same files with the same content.

    Args:
        config: the whole configuration.
        cache: the lab's cache folder.
        threads: threads for reading and decoding.
        progress: called with (done, total) while images are drawn or decoded.

    Raises:
        UserError: the dataset, its labels, what it knows of patients or the split cannot be used as
            configured.
    """
    asked = isinstance(config.metadata, PatientMetadata)
    data = prepare_images(config, cache=cache, threads=threads, patients=asked, progress=progress)
    known = encode_patients(data.manifest, config.metadata)
    notes = (*data.notes, *(known.notes if known else ()))
    return replace(data, patients=known, notes=notes)


def prepare_images(
    config: Config,
    *,
    cache: Path,
    threads: int,
    patients: bool,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """As ``prepare_data``, but for what is known of patients, which is left as words and years.

    Args:
        config: the whole configuration.
        cache: the lab's cache folder.
        threads: threads for reading and decoding.
        patients: whether what a table says of patients counts, and so must be right.
        progress: called with (done, total) while images are drawn or decoded.

    Raises:
        UserError: the dataset, its labels or the split cannot be used as configured.
    """
    dataset = config.dataset
    listing = read_listing(dataset, cache, progress, patients=patients)
    images = listing.images
    images["digest"] = compute_file_digests(list(images["path"]), threads)
    described = (listing.unmatched, listing.grouped_by, listing.columns, listing.notes)
    same = _digest(repr(dataset), repr(config.split), str(cache.absolute()), repr(described))
    same += _digest(pd.util.hash_pandas_object(images, index=False).tolist())
    if same not in _prepared:
        data = _prepare(config, listing, cache=cache, threads=threads, progress=progress)
        while len(_prepared) >= MAX_PREPARED:
            _prepared.pop(next(iter(_prepared)))  # the oldest
        _prepared[same] = data
    data = _prepared[same]
    return replace(data, manifest=data.manifest.copy())


def _prepare(
    config: Config,
    listing: Listing,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None,
) -> PreparedData:
    """Decode, label, group and split images that are listed, with the digests of their files."""
    dataset, manifest = config.dataset, listing.images
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
    # Both, so that training never takes what the audit lists, whatever the image size.
    unreadable = inspection.unreadable | pixels.unreadable
    manifest, notes = drop_unreadable(manifest, unreadable, dataset)
    with _append_listing_notes(listing):
        settled = resolve_labels(
            manifest,
            labels=dataset.labels if isinstance(dataset, Isic9Dataset) else LabelSource.folder,
            conflicts=dataset.conflicts,
            classes=dataset.classes,
        )
        _check_slugs(settled.classes)
        _check_positive_class(dataset, settled.classes)
        manifest = settled.manifest.assign(group=group_images(settled.manifest, dataset.groups))
        manifest, left_out = split_images(manifest, config.split)
    manifest = manifest.loc[:, list(MANIFEST_COLUMNS)]
    protocol = _protocol(manifest, listing.grouped_by)
    index = {name: i for i, name in enumerate(settled.classes)}
    return PreparedData(
        manifest=manifest,
        classes=settled.classes,
        melanoma=slugify(dataset.melanoma) if dataset.melanoma else None,
        pixels=pixels.images,
        resize=dataset.resize,
        rows=np.array([pixels.row[digest] for digest in manifest["digest"]], dtype=np.int64),
        labels=np.array([index[label] for label in manifest["label"]], dtype=np.int64),
        digest=_digest(
            [*manifest[["image_id", "digest", "label"]].itertuples(index=False, name=None)],
            settled.classes,
        ),
        split_hash=compute_split_hash(manifest),
        protocol=protocol,
        grouped_by=listing.grouped_by,
        columns=listing.columns,
        notes=(
            *listing.notes,
            *_unmatched_notes(listing.unmatched),
            *_links(dataset),
            *notes,
            *settled.notes,
            *left_out,
        ),
        findings=findings,
        unresolved=describe_unresolved(findings, dataset, protocol),
    )


@contextmanager
def _append_listing_notes(listing: Listing) -> Iterator[None]:
    """Add to an error what was read and left out before, which may be its cause."""
    try:
        yield
    except UserError as error:
        before = " ".join(filter(None, [listing.columns, *listing.notes]))
        raise UserError(f"{error} {before}".strip()) from error


def _unmatched_notes(unmatched: UnmatchedImages) -> Iterator[str]:
    """What of the metadata table or of the folder takes no part, for want of its counterpart."""
    missing, unlisted = unmatched.missing, unmatched.unlisted
    if missing:
        yield f"{unmatched.table} names images that are not there: {_format_example(missing)}."
    if unlisted:
        yield f"{unmatched.table} does not name, and so are left out: {_format_example(unlisted)}."


def _links(dataset: Dataset) -> list[str]:
    """Links that were not followed, for a note."""
    if dataset.root is None or dataset.outside_root:
        return []
    return describe_outside_links(Path(dataset.root).expanduser())


def _format_example(names: Sequence[str]) -> str:
    """A count and an example."""
    return names[0] if len(names) == 1 else f"{len(names)}, such as {names[0]}"


def _check_positive_class(dataset: Dataset, classes: Sequence[str]) -> None:
    """Refuse a melanoma class that the images have none of."""
    if dataset.melanoma and slugify(dataset.melanoma) not in map(slugify, classes):
        raise UserError(
            f"dataset.melanoma={dataset.melanoma}: the images have no such class. "
            f"{suggest_choice(dataset.melanoma, classes)}"
        )


def _check_slugs(classes: Sequence[str]) -> None:
    """Class names must stay apart, and stay something, as column and metric names."""
    seen: dict[str, str] = {}
    for name in classes:
        if not slugify(name):
            raise UserError(f"dataset.classes: {name!r} has no letters or digits to name it by.")
        if len(slugify(name)) > MAX_SLUG_LENGTH:
            raise UserError(
                f"dataset.classes: {name!r} is too long to name a metric by; rename it to at most "
                f"{MAX_SLUG_LENGTH} letters."
            )
        if slugify(name) in seen:
            raise UserError(
                f"dataset.classes: {seen[slugify(name)]!r} and {name!r} would share the column "
                f"prob/{slugify(name)}; rename one."
            )
        seen[slugify(name)] = name


def _protocol(manifest: pd.DataFrame, grouped_by: Sequence[str]) -> str:
    """Whether images that belong together are known, and are on one side of the split."""
    known = manifest.assign(group=group_images(manifest, GroupingRule.all))
    sides = known.drop_duplicates(["group", "split"])
    if sides["group"].duplicated().any():
        return "leaking"
    return "grouped" if grouped_by else "ungrouped"


def compute_split_hash(table: pd.DataFrame) -> str:
    """A hash of which image is in which split.

    Args:
        table: with the columns image_id and split, sorted by image_id.
    """
    return _digest([*table[["image_id", "split"]].itertuples(index=False, name=None)])


def _digest(*parts: object) -> str:
    """A short SHA-256 over anything that JSON can write."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return hash_text(text, 16)
