"""Find the training images whose embeddings are nearest to that of an image; NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

#: From uint8 pixels, shape (n, s, s, 3), to float32 features of unit length, shape (n, d).
Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


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
