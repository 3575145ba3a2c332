"""The training images of a network, from its run's manifest."""

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
    """The n training images of a network.

    Attributes:
        paths: paths of the n files.
        labels: the n class names.
        groups: the n groups; images of one lesion are in the same group.
        digests: digests of the n files as training read them.
        others: path -> digest of the dataset's other images; the decode cache contains them too.
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
        """Load their pixels, from the decode cache if training has filled it.

        Args:
            size: the height and width of the network's input, in pixels.
            resize: how an image is fitted into the square.
            cache: the cache folder.
            threads: the number of threads for reading and decoding.
            progress: called with (done, total) while images are decoded.

        Returns:
            Pixels, uint8, shape (m, size, size, 3), and the row of each image in them, int64, shape
            (n,).

        Raises:
            UserError: a file has changed since training, or cannot be read.
        """
        paths, digests = [*self.paths, *self.others], [*self.digests, *self.others.values()]
        found = compute_file_digests(paths, threads)
        unchanged = [now == then for now, then in zip(found, digests, strict=True)]
        if not all(unchanged[: len(self.paths)]):
            changed = [path for path, same in zip(self.paths, unchanged, strict=False) if not same]
            raise UserError(_explain_missing("have changed since", changed, len(self.paths)))
        decoded = load_pixels(
            [path for path, same in zip(paths, unchanged, strict=True) if same],
            [digest for digest, same in zip(digests, unchanged, strict=True) if same],
            size=size,
            resize=resize,
            cache=cache,
            threads=threads,
            progress=progress,
        )
        unreadable = [p for p, d in zip(self.paths, self.digests, strict=True)
                      if d not in decoded.row]  # fmt: skip
        if unreadable:
            raise UserError(_explain_missing("cannot be read", unreadable, len(self.paths)))
        return decoded.images, np.array([decoded.row[d] for d in self.digests], np.int64)


def load_reference_manifest(source: ModelSource, tracked: Tracking) -> pd.DataFrame:
    """Load the manifest of the run that trained a network; all its values are text.

    Args:
        source: the saved model and its origin.
        tracked: the settings of the tracking server.

    Raises:
        UserError: the run is unknown, or its manifest is missing or lacks a column.
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
    """Find the files of a network's training images.

    Args:
        manifest: the table from ``load_reference_manifest``.
        root: the folder of the dataset; None for the paths used in training.

    Raises:
        UserError: a file is missing, or the manifest has no training images.
    """
    if root is not None:
        folder = Path(root).expanduser()
        manifest = manifest.assign(path=[str(folder / name) for name in manifest["image_id"]])
    train = manifest[manifest["split"] == TRAIN]
    missing = [path for path in train["path"] if not Path(path).is_file()]
    if missing or not len(train):
        raise UserError(_explain_missing("are not there", missing, len(train)))
    others = manifest[manifest["split"] != TRAIN]
    return TrainingImages(
        paths=tuple(train["path"]),
        labels=tuple(train["label"]),
        groups=tuple(train["group"]),
        digests=tuple(train["digest"]),
        others=dict(zip(others["path"], others["digest"], strict=True)),
    )


def _explain_missing(what: str, paths: Sequence[str], n: int) -> str:
    example = f", such as {truncate(paths[0])}" if paths else ""
    return (
        f"{len(paths):,} of the {n:,} training images {what}{example}; "
        "dataset.root=DIR says where they lie"
    )
