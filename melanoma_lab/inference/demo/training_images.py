"""The images that a network was trained with, and those nearest to a new image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
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
from melanoma_lab.data.cache import compute_file_digests, load_pixels
from melanoma_lab.data.split import TRAIN
from melanoma_lab.inference.known_images import MANIFEST, load_run_manifest
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.tracking.run_reader import read_run

#: From uint8 pixels, shape (n, s, s, 3), to float32 features of unit length, shape (n, d).
Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
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


@dataclass(frozen=True)
class ReferenceSet:
    """Training images and embeddings that an image is compared with.

    Attributes:
        known: digest of the file -> split and label, for all images of the model's dataset.
        images: the training images; None if their files are missing.
        features: their embeddings, of unit length; float32, shape (n, d).
        of: the function from pixels to embeddings.
        why_none: why there are no training images; empty if there are.
        count: the number of neighbours to show.
    """

    known: Mapping[str, tuple[str, str]]
    images: TrainingImages | None = None
    features: NDArray[np.float32] | None = None
    of: Embedder | None = None
    why_none: str = ""
    count: int = 0


def load_reference_manifest(source: ModelSource, tracked: Tracking) -> pd.DataFrame:
    """Load the manifest of the run that trained a network.

    Args:
        source: the saved model and its origin.
        tracked: the settings of the tracking server.

    Raises:
        UserError: the run is unknown, or its manifest is missing or lacks a column.
    """
    if source.run is None:
        raise UserError("the run that trained this model is not known")
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        run = read_run(source.run, tracked, Path(scratch))
        try:
            run.require_artifact(MANIFEST)
        except OSError as error:
            raise UserError(f"run {source.run}: {error}.") from error
        table = load_run_manifest(run, tracked, Path(scratch))
    if table is None:
        raise UserError(f"run {source.run}: the {MANIFEST} of a member is missing.")
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
        raise UserError(_explain_missing("are missing", missing, len(train)))
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
        f"{len(paths):,} of the {n:,} training images {what}{example}; name their folder with "
        "dataset.root=DIR"
    )


def normalise_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale features to unit length, so that the product of two is their cosine.

    Args:
        features: the features of n images; float32, shape (n, d).

    Returns:
        float32, shape (n, d); zeros for an image whose features are all 0.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.zeros_like(features)
    np.divide(features, lengths, out=unit, where=lengths > 0)
    return unit


def find_nearest(
    features: NDArray[np.float32], query: NDArray[np.float32], groups: Sequence[str], n: int
) -> list[tuple[int, float]]:
    """Find the nearest images, one of each group, because a group's images show the same lesion.

    Args:
        features: embeddings of m images, of unit length; float32, shape (m, d).
        query: the embedding of the image, of unit length; float32, shape (d,).
        groups: the groups of the m images.
        n: the maximum number of images to find.

    Returns:
        At most n pairs of (row, cosine), the nearest first; ties in the order of rows.
    """
    cosines = features @ query
    found: list[tuple[int, float]] = []
    seen: set[str] = set()
    for row in np.argsort(-cosines, kind="stable"):
        if len(found) == n:
            break
        if groups[row] not in seen:
            seen.add(groups[row])
            found.append((int(row), float(np.clip(cosines[row], -1, 1))))
    return found
