"""What a network makes of an image before it names a class; kept for its training images.

The penultimate features are what the network's last dense layer takes. A network of several
(an ensemble; one that sees mirrored views) has those of each, of unit length, side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.checksums import hash_file, hash_text
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.inference.demo.neighbours import Embedder, normalise_length

#: Images that are looked at together.
AT_ONCE = 64
#: Part of every key: raise it when the same network gives other features.
VERSION = 1


def build_embedder(network: keras.Model) -> Embedder:
    """A function from pixels to what a network makes of them before it names a class.

    Args:
        network: from pixels, shape (n, s, s, 3), to classes.

    Raises:
        UserError: it does not end in a dense layer that takes a row of features for an image.
    """
    parts = _parts(network)

    def features(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = [
            normalise_length(np.asarray(part.predict_on_batch(pixels), np.float32))
            for part in parts
        ]
        return normalise_length(np.concatenate(found, axis=1))

    return features


def load_or_compute_embeddings(
    features: Embedder,
    images: Callable[[], tuple[NDArray[np.uint8], NDArray[np.int64]]],
    *,
    size: int,
    network: Path,
    digests: Sequence[str],
    cache: Path,
    progress: ProgressCallback | None = None,
) -> NDArray[np.float32]:
    """The features of images, computed first where the cache has none.

    Args:
        features: of ``build_embedder``.
        images: called where the cache has none; gives uint8 pixels, shape (m, size, size, 3), and
            int64, shape (n,), where each image lies in them.
        size: side in pixels.
        network: the network's file, by whose content they are found again.
        digests: n digests of the images' files.
        cache: the lab's cache folder.
        progress: called with (done, total) while they are computed.

    Returns:
        float32, shape (n, d), of unit length, memory-mapped.

    Raises:
        RunError: the cache cannot be written.
    """
    width = features(np.zeros((1, size, size, 3), np.uint8)).shape[1]
    shape = (len(digests), 4 * width)  # the cache's files are of bytes; these are four a number
    path = cache / "embeddings" / f"{_key(network, size, digests)}.npy"

    def compute() -> None:
        pixels, rows = images()
        with write_array(path, shape) as file:
            for first in range(0, len(rows), AT_ONCE):
                made = features(pixels[rows[first : first + AT_ONCE]])
                file.write(first, made.astype("<f4").view(np.uint8))
                if progress:
                    progress(first + len(made), len(rows))

    found: NDArray[np.uint8] = load_or_compute(path, lambda: open_array(path, shape), compute)
    return found.view("<f4")


def _key(network: Path, size: int, digests: Sequence[str]) -> str:
    said = json.dumps([VERSION, DECODING_VERSION, hash_file(network), size, *digests])
    return hash_text(said, 32)


def _parts(network: Any) -> list[keras.Model]:
    """The networks to be asked for features: this one, or those that it is made of."""
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    if dense and _feeds(dense[-1]):
        return [keras.Model(network.inputs, dense[-1].input)]
    inner = [layer for layer in network.layers if _is_classifier(layer, network)]
    if dense or not inner:
        raise UserError("the network does not end in a dense layer over features of the image")
    return [part for layer in inner for part in _parts(layer)]


def _feeds(layer: Any) -> bool:
    """Whether a layer is used once, on a row of features for each image."""
    try:
        return len(layer.input.shape) == 2
    except (AttributeError, ValueError):  # it was called more than once, or on several
        return False


def _is_classifier(layer: Any, network: Any) -> bool:
    """Whether a layer is itself a network from the same pixels to the same classes."""
    return (
        isinstance(layer, keras.Model)
        and len(layer.inputs) == 1
        and layer.inputs[0].shape == network.inputs[0].shape
        and len(layer.outputs) == 1
        and layer.outputs[0].shape == network.outputs[0].shape
    )
