"""The images that a network has learned from, as its run's manifest names them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.pixel_cache import compute_file_digests, load_pixels
from melanoma_lab.data.split import TRAIN
from melanoma_lab.inference.known_images import MANIFEST, load_run_manifest
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.tracking.run_reader import read_run

_COLUMNS = ("image_id", "path", "label", "group", "split", "digest")


@dataclass(frozen=True)
class TrainingImages:
    """What can be shown beside an image.

    Attributes:
        paths: n files.
        labels: n class names.
        groups: n groups: photographs of one lesion share theirs.
        digests: n digests of the files, as training saw them.
        others: path -> digest of the dataset's other images, which the decode cache has too.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str]
    digests: Sequence[str]
    others: Mapping[str, str]

    def pixels(
        self,
        *,
        size: int,
        resize: Resize,
        cache: Path,
        threads: int,
        progress: ProgressCallback | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Their pixels, from the decode cache where training has filled it.

        Args:
            size: side in pixels.
            resize: what becomes of their proportions.
            cache: the lab's cache folder.
            threads: for reading and decoding.
            progress: called with (done, total) while decoding.

        Returns:
            uint8, shape (m, size, size, 3), and int64, shape (n,): where each lies in it.

        Raises:
            UserError: a file is another one than training saw.
        """
        paths, digests = [*self.paths, *self.others], [*self.digests, *self.others.values()]
        found = compute_file_digests(paths, threads)
        same = [now == then for now, then in zip(found, digests, strict=True)]
        if not all(same[: len(self.paths)]):
            changed = [p for p, as_it_was in zip(self.paths, same, strict=False) if not as_it_was]
            raise UserError(_unlike_then("have changed since", changed, len(self.paths)))
        decoded = load_pixels(
            [path for path, as_it_was in zip(paths, same, strict=True) if as_it_was],
            [digest for digest, as_it_was in zip(digests, same, strict=True) if as_it_was],
            size=size,
            resize=resize,
            cache=cache,
            threads=threads,
            progress=progress,
        )
        unreadable = [p for p, d in zip(self.paths, self.digests, strict=True)
                      if d not in decoded.row]  # fmt: skip
        if unreadable:
            raise UserError(_unlike_then("cannot be read", unreadable, len(self.paths)))
        return decoded.images, np.array([decoded.row[d] for d in self.digests], np.int64)


def load_reference_manifest(source: ModelSource, tracked: Tracking) -> pd.DataFrame:
    """The table of the images that a network was made with, as text.

    Args:
        source: the network's.
        tracked: where runs are recorded.

    Raises:
        UserError: nothing says which run trained it, or that has no such table.
    """
    if source.run is None:
        raise UserError("nothing says which run trained this model")
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        run = read_run(source.run, tracked, Path(scratch))
        try:
            run.require_artifact(MANIFEST)
        except OSError as error:
            raise UserError(f"run {source.run}: {error}.") from error
        table = load_run_manifest(run, tracked, Path(scratch))
    if table is None:
        raise UserError(f"run {source.run}: a member's {MANIFEST} is not there.")
    if missing := [name for name in _COLUMNS if name not in table]:
        raise UserError(f"run {source.run}: its {MANIFEST} has no column {', '.join(missing)}.")
    return table


def find_training_images(manifest: pd.DataFrame, root: str | None) -> TrainingImages:
    """Find the images that a network has learned from.

    Args:
        manifest: as ``load_reference_manifest`` gives it.
        root: where the dataset lies now; None: where it lay when the network was trained.

    Raises:
        UserError: they are not there.
    """
    if root is not None:
        folder = Path(root).expanduser()
        manifest = manifest.assign(path=[str(folder / name) for name in manifest["image_id"]])
    train = manifest[manifest["split"] == TRAIN]
    missing = [path for path in train["path"] if not Path(path).is_file()]
    if missing or not len(train):
        raise UserError(_unlike_then("are not there", missing, len(train)))
    others = manifest[manifest["split"] != TRAIN]
    return TrainingImages(
        paths=tuple(train["path"]),
        labels=tuple(train["label"]),
        groups=tuple(train["group"]),
        digests=tuple(train["digest"]),
        others=dict(zip(others["path"], others["digest"], strict=True)),
    )


def _unlike_then(what: str, paths: Sequence[str], n: int) -> str:
    example = f", such as {truncate(paths[0])}" if paths else ""
    return (
        f"{len(paths):,} of the {n:,} training images {what}{example}; "
        "dataset.root=DIR says where they lie"
    )
