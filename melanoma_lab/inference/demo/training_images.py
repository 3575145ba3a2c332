"""The training images of a network, with embeddings, and those nearest to a new image.

An embedding is the input of the network's last dense layer. If a network contains several
classifiers (an ensemble, or test-time augmentation), it is the concatenation of theirs, each of
unit length.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_file, hash_text
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.cache import compute_file_digests, load_pixels
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.data.split import TRAIN
from melanoma_lab.inference.known_images import MANIFEST, KnownFiles, load_run_manifest
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.predictor import Predictor
from melanoma_lab.tracking.run_reader import read_run

#: From uint8 pixels, shape (n, s, s, 3), to float32 features of unit length, shape (n, d).
Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
#: The batch size.
AT_ONCE = 64
#: Part of every cache key; increase it if the code changes the embeddings of a network.
VERSION = 1
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

        ``progress`` is called with (done, total) while images are decoded.

        Returns:
            Pixels, uint8, shape (m, size, size, 3), and the row of each image in them, int64, shape
            (n,).

        Raises:
            UserError: a file has changed since training, or cannot be read.
        """
        n = len(self.paths)
        paths = np.array([*self.paths, *self.others])
        digests = np.array([*self.digests, *self.others.values()])
        unchanged = np.array(compute_file_digests(paths.tolist(), threads)) == digests
        if not unchanged[:n].all():
            changed = paths[:n][~unchanged[:n]].tolist()
            raise UserError(_explain_missing("have changed since", changed, n))
        decoded = load_pixels(
            paths[unchanged].tolist(),
            digests[unchanged].tolist(),
            size=size,
            resize=resize,
            cache=cache,
            threads=threads,
            progress=progress,
        )
        rows = [decoded.row.get(digest, -1) for digest in self.digests]
        if -1 in rows:
            unreadable = [path for path, row in zip(self.paths, rows, strict=True) if row == -1]
            raise UserError(_explain_missing("cannot be read", unreadable, n))
        return decoded.images, np.array(rows, np.int64)


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
    """Find the files of the training images in a manifest from ``load_reference_manifest``.

    They are in the folder ``root`` of the dataset, or where training read them if it is None.

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
    """Scale features, float32 (n, d), to unit length, so that the product of two is their cosine.

    An image whose features are all 0 keeps them.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.zeros_like(features)
    np.divide(features, lengths, out=unit, where=lengths > 0)
    return unit


def find_nearest(
    features: NDArray[np.float32], query: NDArray[np.float32], groups: Sequence[str], n: int
) -> list[tuple[int, float]]:
    """Find the nearest images, one of each group, because a group's images show the same lesion.

    ``features``, float32 (m, d), and ``query``, float32 (d,), are embeddings of unit length.

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


def load_reference_set(
    model: Predictor,
    *,
    tracked: Tracking,
    root: str | None,
    count: int,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> ReferenceSet:
    """Load the images of a model's dataset, and the embeddings of its training images.

    Missing images are no error: the result lacks them, and its ``why_none`` says why.

    Args:
        model: the loaded network.
        tracked: the settings of the tracking server.
        root: the folder of the dataset; None for the folder used in training.
        count: the number of training images to show for an image; 0 for none.
        cache: the cache folder.
        threads: the number of threads for reading and decoding.
        progress: called with (done, total) while images are decoded and embedded.

    Raises:
        RunError: the cache cannot be written.
    """
    try:
        manifest = load_reference_manifest(model.source, tracked)
    except UserError as error:
        return ReferenceSet({}, why_none=str(error).rstrip(".") if count else "")
    files = KnownFiles.of(manifest)
    known = files.digests if files else {}
    if not count:
        return ReferenceSet(known)
    try:
        images = find_training_images(manifest, root)
        embedder = build_embedder(model.network)
        features = _load_or_compute(
            embedder, images, model, cache=cache, threads=threads, progress=progress
        )
    except UserError as error:
        return ReferenceSet(known, why_none=str(error).rstrip("."))
    return ReferenceSet(known, images, features, embedder, count=count)


def build_embedder(network: Any) -> Embedder:
    """Build a function from pixels to embeddings, of a classifier of pixels, shape (n, s, s, 3).

    Raises:
        UserError: the network does not end in a dense layer with one row of features per image.
    """
    parts = _build_feature_networks(network)

    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = [
            normalise_length(np.asarray(part.predict_on_batch(pixels), np.float32))
            for part in parts
        ]
        return normalise_length(np.concatenate(features, axis=1))

    return embed


def _load_or_compute(
    embed: Embedder,
    images: TrainingImages,
    model: Predictor,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None,
) -> NDArray[np.float32]:
    """Load the embeddings of n images from the cache, or compute them: float32, shape (n, d)."""
    size, digests = model.size, images.digests
    width = embed(np.zeros((1, size, size, 3), np.uint8)).shape[1]
    shape = (len(digests), 4 * width)  # the cache stores bytes; a float32 has four
    network = hash_file(model.source.network)
    key = hash_text(json.dumps([VERSION, DECODING_VERSION, network, size, *digests]), 32)
    path = cache / "embeddings" / f"{key}.npy"

    def compute() -> None:
        pixels, rows = images.pixels(
            size=size, resize=model.card.resize, cache=cache, threads=threads, progress=progress
        )
        with write_array(path, shape) as file:
            for first in range(0, len(rows), AT_ONCE):
                batch = embed(pixels[rows[first : first + AT_ONCE]])
                file.write(first, batch.astype("<f4").view(np.uint8))
                if progress:
                    progress(first + len(batch), len(rows))

    found: NDArray[np.uint8] = load_or_compute(path, lambda: open_array(path, shape), compute)
    return found.view("<f4")


def _build_feature_networks(network: Any) -> list[Any]:
    """Build networks up to the last dense layer, of this network or of the classifiers in it."""
    import keras

    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    if dense and _has_feature_input(dense[-1]):
        return [keras.Model(network.inputs, dense[-1].input)]
    models = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    inner = [layer for layer in models if _is_like(layer, network)]
    if dense or not inner:
        raise UserError("the network does not end in a dense layer over features of the image")
    return [part for layer in inner for part in _build_feature_networks(layer)]


def _has_feature_input(layer: Any) -> bool:
    """Return whether a layer is used once, on a row of features for each image."""
    try:
        return len(layer.input.shape) == 2
    except (AttributeError, ValueError):  # it was called more than once, or has several inputs
        return False


def _is_like(layer: Any, network: Any) -> bool:
    """Return whether a network takes the same pixels and returns the same classes as another."""
    return (
        len(layer.inputs) == 1
        and layer.inputs[0].shape == network.inputs[0].shape
        and len(layer.outputs) == 1
        and layer.outputs[0].shape == network.outputs[0].shape
    )
