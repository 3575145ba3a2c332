"""What a model knows: its run, and the images that it was fitted to, chosen by and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.audit.shared_images import find_shared_photographs
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import read_yaml
from melanoma_lab.data.image_files import find_images
from melanoma_lab.data.pixel_cache import compute_file_digests
from melanoma_lab.data.readers import ISIC_ID, get_archive_name
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.data.untrusted_tables import read_manifest
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.tracking.arm_runs import SEEDS_TAG
from melanoma_lab.tracking.run_reader import TrackedRun, read_run

MANIFEST: Final = "manifest.csv"
#: What an image has been to a network that nobody has shown it to.
NEW: Final = "new"
#: What an image has been to a network, what weighs most first.
ROLES: Final = (TRAIN, VAL, TEST, NEW)
TRAINED_ON_KEY: Final = "evaluation.trained_on"
COLUMNS: Final = ("image_id", "split", "digest", "lesion", "patient", "path")


@dataclass(frozen=True)
class TrainingRun:
    """The run that trained a model, as far as it is found.

    Attributes:
        run_id: MLflow's; empty where nothing says it.
        tags: as tracked.
        metrics: likewise.
        manifest: its images; None where they are not known.
    """

    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    manifest: pd.DataFrame | None = None


@dataclass(frozen=True)
class KnownImages:
    """The images of a model's dataset, and which of their files are there.

    Attributes:
        table: ``COLUMNS``; the path is empty where there is no file of that content.
    """

    table: pd.DataFrame

    @property
    def there(self) -> pd.DataFrame:
        """Those whose file is there."""
        return self.table[self.table["path"] != ""]


def find_training_run(source: ModelSource, tracked: Tracking, scratch: Path) -> TrainingRun:
    """Find the run that trained a model; an empty one where it is not there.

    Args:
        source: the model's.
        tracked: where runs are recorded.
        scratch: a folder for what has to be fetched.
    """
    if not source.run:
        return TrainingRun()
    try:
        run = read_run(source.run, tracked, scratch)
    except UserError:  # a model that came from elsewhere
        return TrainingRun()
    return TrainingRun(run.run_id, run.tags, run.metrics, load_run_manifest(run, tracked, scratch))


def load_run_manifest(run: TrackedRun, tracked: Tracking, scratch: Path) -> pd.DataFrame | None:
    """The table of the images that a run was made with, as text.

    Args:
        run: that trained a network, or put networks together: then an image is of ``train`` where
            any of these was trained on it, and of ``val`` where any was chosen by it.
        tracked: where runs are recorded.
        scratch: a folder for what has to be fetched.

    Returns:
        None where the run, or one of those that it put together, has none.
    """
    path = run.artifact(MANIFEST)
    if path is None:
        return None
    manifest = read_manifest(path)
    if SEEDS_TAG not in run.tags:
        return manifest
    config = run.artifact("config.yaml")
    if config is None:
        return None
    said = read_yaml(config)
    for member in said["ensemble"]["members"]:
        folder = scratch / member
        folder.mkdir(exist_ok=True)
        try:
            theirs = load_run_manifest(read_run(member, tracked, folder), tracked, folder)
        except UserError:
            return None
        if theirs is None:
            return None
        split = manifest["image_id"].map(theirs.set_index("image_id")["split"]).fillna(NEW)
        pairs = zip(manifest["split"], split, strict=True)
        manifest["split"] = [min(pair, key=ROLES.index) for pair in pairs]
    return manifest


@dataclass(frozen=True)
class KnownFiles:
    """What files have been to a network, by their bytes or their ids in the ISIC archive.

    Attributes:
        digests: digest -> role and label; of the roles of equal files, what weighs most.
        archive_ids: id -> role.
    """

    digests: Mapping[str, tuple[str, str]]
    archive_ids: Mapping[str, str]

    @classmethod
    def of(cls, manifest: pd.DataFrame | None) -> KnownFiles | None:
        """Those of a run; None where its table is not there, or does not say it.

        Args:
            manifest: as ``load_run_manifest`` gives it.
        """
        if manifest is None or not {"image_id", "split", "digest", "label"} <= set(manifest):
            return None
        table = manifest[manifest["split"].isin(ROLES)]
        # The last of equal keys stays: what weighs most comes last.
        table = table.sort_values("split", key=lambda s: -s.map(ROLES.index), kind="stable")
        said = list(zip(table["split"], table["label"], strict=True))
        ids = map(parse_archive_id, table["image_id"])
        digests = {d: known for d, known in zip(table["digest"], said, strict=True) if d}
        roles = {i: role for i, role in zip(ids, table["split"], strict=True) if i}
        return cls(digests, roles)

    def role_of(self, image_id: str, digest: str) -> str:
        """What a file has been to the network, of ``ROLES``.

        Args:
            image_id: its name or path.
            digest: of its bytes.
        """
        by_bytes, _ = self.digests.get(digest, (NEW, ""))
        by_id = self.archive_ids.get(parse_archive_id(image_id), NEW)
        return min(by_bytes, by_id, key=ROLES.index)


def find_known_images(run: TrainingRun, folder: str | None, threads: int) -> KnownImages | None:
    """What a model was trained on, and where the files of that lie.

    Args:
        run: that trained it.
        folder: of these images, as typed; None: where the run found them.
        threads: for reading files.

    Returns:
        None where neither the run nor a folder says it.

    Raises:
        UserError: the folder does not have these images.
    """
    root = None if folder is None else Path(folder).expanduser()
    if root is not None and not root.is_dir():
        raise UserError(f"{TRAINED_ON_KEY}={folder}: no such folder.")
    if run.manifest is None:
        return None if root is None else KnownImages(_all_below(root, threads))
    table = run.manifest.reindex(columns=list(COLUMNS), fill_value="")
    if root is not None:
        table["path"] = [str(root / image_id) for image_id in table["image_id"]]
    found = compute_file_digests(list(table["path"]), threads)
    same = (table["digest"] == found) & (table["digest"] != "")
    if root is not None and not same.any():
        raise UserError(
            f"{TRAINED_ON_KEY}={folder}: has none of the {len(table):,} images that the model's "
            f"run knows, such as {table['image_id'].iloc[0]}, with the content that they had then."
        )
    return KnownImages(table.assign(path=table["path"].where(same, "")))


def _all_below(root: Path, threads: int) -> pd.DataFrame:
    """Every image below a folder, as one that was trained on."""
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


def find_near_identical(
    manifest: pd.DataFrame,
    known: KnownImages,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> list[list[object]]:
    """Pairs of alike images, as ``assign_image_roles`` takes them: digests, score and kind."""
    there = known.there
    if there.empty:
        return []
    return find_shared_photographs(
        (list(manifest["path"]), list(manifest["digest"])),
        (list(there["path"]), list(there["digest"])),
        cache=cache,
        threads=threads,
        progress=progress,
    )


def parse_archive_id(image_id: str) -> str:
    """The ISIC archive's id of a photograph, by its file's name; empty where that has none."""
    match = ISIC_ID.match(get_archive_name(image_id))
    return match.group().upper() if match else ""
