"""The run that trained a model, and the images of its train, val and test splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import read_yaml
from melanoma_lab.data.cache import compute_file_digests
from melanoma_lab.data.image_files import find_images
from melanoma_lab.data.readers import ISIC_ID, get_archive_name
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.data.tables import read_manifest
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.tracking.arm_runs import SEEDS_TAG
from melanoma_lab.tracking.run_reader import TrackedRun, read_run

MANIFEST: Final = "manifest.csv"
#: The role of an image that is not in the network's dataset.
NEW: Final = "new"
#: The roles of images for a network; if several apply, the first one counts.
ROLES: Final = (TRAIN, VAL, TEST, NEW)
TRAINED_ON_KEY: Final = "evaluation.trained_on"
COLUMNS: Final = ("image_id", "split", "digest", "lesion", "patient", "path")


def read_training_run(source: ModelSource, tracked: Tracking, scratch: Path) -> TrackedRun | None:
    """Read the run that trained a model; None if it is unknown, deleted or tracked elsewhere.

    Downloads go to the temporary folder ``scratch``.
    """
    try:
        return read_run(source.run, tracked, scratch) if source.run else None
    except UserError:
        return None


def load_run_manifest(
    run: TrackedRun | None, tracked: Tracking, scratch: Path
) -> pd.DataFrame | None:
    """Load the manifest of a run: the table of its images.

    In the table of an ensemble, the split of an image is the first of ``ROLES`` among its splits in
    the ensemble and in the members: ``train`` if any member was trained on it. The result is None
    if the run or a member of the ensemble has no table.
    """
    path = None if run is None else run.artifact(MANIFEST)
    if run is None or path is None:
        return None
    manifest = read_manifest(path)
    if SEEDS_TAG not in run.tags:
        return manifest
    config = run.artifact("config.yaml")
    if config is None:
        return None
    for member in read_yaml(config)["ensemble"]["members"]:
        folder = scratch / member
        folder.mkdir(exist_ok=True)
        try:
            of_member = load_run_manifest(read_run(member, tracked, folder), tracked, folder)
        except UserError:
            return None
        if of_member is None:
            return None
        split = manifest["image_id"].map(of_member.set_index("image_id")["split"]).fillna(NEW)
        pairs = zip(manifest["split"], split, strict=True)
        manifest["split"] = [min(pair, key=ROLES.index) for pair in pairs]
    return manifest


@dataclass(frozen=True)
class KnownFiles:
    """The roles of files for a network, by their bytes or their ids in the ISIC archive.

    Attributes:
        digests: digest of the file -> role and label; the first of ``ROLES`` for identical files.
        archive_ids: ISIC id -> role.
    """

    digests: Mapping[str, tuple[str, str]]
    archive_ids: Mapping[str, str]

    @classmethod
    def of(cls, manifest: pd.DataFrame | None) -> KnownFiles | None:
        """Read the roles from a run's manifest; return None if it is missing or lacks a column."""
        if manifest is None or not {"image_id", "split", "digest", "label"} <= set(manifest):
            return None
        table = manifest[manifest["split"].isin(ROLES)]
        # In a dictionary the last of equal keys stays, so the first of ROLES must come last.
        table = table.sort_values("split", key=lambda s: -s.map(ROLES.index), kind="stable")
        entries = list(zip(table["split"], table["label"], strict=True))
        ids = map(parse_archive_id, table["image_id"])
        digests = {d: entry for d, entry in zip(table["digest"], entries, strict=True) if d}
        roles = {i: role for i, role in zip(ids, table["split"], strict=True) if i}
        return cls(digests, roles)

    def role_of(self, image_id: str, digest: str) -> str:
        """Return the role of a file for the network, one of ``ROLES``.

        ``image_id`` is the file's name or path.
        """
        by_bytes, _ = self.digests.get(digest, (NEW, ""))
        by_id = self.archive_ids.get(parse_archive_id(image_id), NEW)
        return min(by_bytes, by_id, key=ROLES.index)


def find_known_images(
    manifest: pd.DataFrame | None, folder: str | None, threads: int
) -> pd.DataFrame | None:
    """Find the images of a model's dataset, and their files.

    ``folder`` is the typed folder of these images; None for the paths used in training.

    Returns:
        A row for each image with the columns ``COLUMNS``, the path empty if the file is missing or
        has changed; None if neither the run's manifest nor a folder is known.

    Raises:
        UserError: the folder does not exist, or has none of these images.
    """
    root = None if folder is None else Path(folder).expanduser()
    if root is not None and not root.is_dir():
        raise UserError(f"{TRAINED_ON_KEY}={folder}: no such folder.")
    if manifest is None:
        return None if root is None else _list_as_trained(root, threads)
    table = manifest.reindex(columns=list(COLUMNS), fill_value="")
    if root is not None:
        table["path"] = [str(root / image_id) for image_id in table["image_id"]]
    found = compute_file_digests(list(table["path"]), threads)
    unchanged = (table["digest"] == found) & (table["digest"] != "")
    if root is not None and not unchanged.any():
        raise UserError(
            f"{TRAINED_ON_KEY}={folder}: has none of the {len(table):,} images of the model's "
            f"run, such as {table['image_id'].iloc[0]}, with unchanged content."
        )
    return table.assign(path=table["path"].where(unchanged, ""))


def _list_as_trained(root: Path, threads: int) -> pd.DataFrame:
    """List all images below a folder with the role ``train``."""
    paths = find_images(root)
    table = pd.DataFrame(
        {
            "image_id": [path.relative_to(root).as_posix() for path in paths],
            "split": TRAIN,
            "digest": compute_file_digests([str(path) for path in paths], threads),
            "lesion": "",
            "patient": "",
            "path": [str(path) for path in paths],
        }
    )
    return table.astype(object)


def parse_archive_id(image_id: str) -> str:
    """Parse the ISIC archive's id from a file's name; return an empty text if it has none."""
    match = ISIC_ID.match(get_archive_name(image_id))
    return match.group().upper() if match else ""
