"""Embeddings of images: the input of the network's last dense layer, cached for training images.

If a network contains several classifiers (an ensemble, or test-time augmentation), its embedding
is the concatenation of theirs, each of unit length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_file, hash_text
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.inference.demo.training_images import (
    Embedder,
    ReferenceSet,
    TrainingImages,
    find_training_images,
    load_reference_manifest,
    normalise_length,
)
from melanoma_lab.inference.known_images import KnownFiles
from melanoma_lab.inference.predictor import Predictor

#: The batch size.
AT_ONCE = 64
#: Part of every cache key; increase it if the code changes the embeddings of a network.
VERSION = 1


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


def build_embedder(network: keras.Model) -> Embedder:
    """Build a function from pixels to embeddings.

    Args:
        network: a classifier of pixels, shape (n, s, s, 3).

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
    """Load the embeddings of n training images from the cache, or compute and cache them.

    Returns:
        Embeddings of unit length, memory-mapped; float32, shape (n, d).
    """
    size, digests = model.size, images.digests
    width = embed(np.zeros((1, size, size, 3), np.uint8)).shape[1]
    shape = (len(digests), 4 * width)  # the cache stores bytes; a float32 has four
    path = cache / "embeddings" / f"{_hash_key(model.source.network, size, digests)}.npy"

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


def _hash_key(network: Path, size: int, digests: Sequence[str]) -> str:
    identity = json.dumps([VERSION, DECODING_VERSION, hash_file(network), size, *digests])
    return hash_text(identity, 32)


def _build_feature_networks(network: Any) -> list[keras.Model]:
    """Build networks up to the last dense layer, of this network or of the classifiers in it."""
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    if dense and _has_feature_input(dense[-1]):
        return [keras.Model(network.inputs, dense[-1].input)]
    inner = [layer for layer in network.layers if _is_classifier(layer, network)]
    if dense or not inner:
        raise UserError("the network does not end in a dense layer over features of the image")
    return [part for layer in inner for part in _build_feature_networks(layer)]


def _has_feature_input(layer: Any) -> bool:
    """Return whether a layer is used once, on a row of features for each image."""
    try:
        return len(layer.input.shape) == 2
    except (AttributeError, ValueError):  # it was called more than once, or has several inputs
        return False


def _is_classifier(layer: Any, network: Any) -> bool:
    """Return whether a layer is itself a network from the same pixels to the same classes."""
    return (
        isinstance(layer, keras.Model)
        and len(layer.inputs) == 1
        and layer.inputs[0].shape == network.inputs[0].shape
        and len(layer.outputs) == 1
        and layer.outputs[0].shape == network.outputs[0].shape
    )
