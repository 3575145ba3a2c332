"""The training images that are nearest to an image, by what the network makes of both. NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

#: From uint8 pixels, shape (n, s, s, 3), to float32 features of unit length, shape (n, d).
Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def normalise_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features over their length, so that a product of two is the cosine between them.

    Args:
        features: float32, shape (n, d).

    Returns:
        float32, shape (n, d); zeros where all features of an image are 0.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.zeros_like(features)
    np.divide(features, lengths, out=unit, where=lengths > 0)
    return unit


def find_nearest(
    features: NDArray[np.float32], query: NDArray[np.float32], groups: Sequence[str], n: int
) -> list[tuple[int, float]]:
    """The nearest images, one of each group: photographs of one lesion say the same thing twice.

    Args:
        features: float32, shape (m, d), of unit length.
        query: float32, shape (d,), of unit length.
        groups: m groups.
        n: how many are wanted.

    Returns:
        At most n of (row, cosine), the nearest first; of equals the one that comes first.
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
