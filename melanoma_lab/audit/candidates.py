"""Which pairs of images are worth a closer look: a learnt projection and exact nearest neighbours.

The projection is Fisher's linear discriminant with every image a class of its own: a sample of the
images is turned, cropped, brightened and blurred, and the directions kept are those along which
different images differ most compared with the versions of one image. It is learnt from the very
images that are searched, so it needs no stored weights and fits any source of images.

Why these: a perceptual hash (as in imagehash, imagededup or pHash) changes with every turn and with
crops of a tenth, see benchmarks/near_duplicates.py, which measures one beside the lab. Approximate
neighbours (HNSW, NN-descent) depend on the order of insertion or on threads, which groups, and so
splits, must not; scikit-learn's exact search is installed anyway and fast enough for hundreds of
thousands. Connected components are SciPy's.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from melanoma_lab.audit.alignment import similarity_transform, warp_planes
from melanoma_lab.audit.descriptors import compute_fingerprints, reduce_size
from melanoma_lab.core.console import ProgressCallback

N_DIMENSIONS: Final = 48
"""Dimensions kept; 32 to 64 found the same copies among 10,000 images."""
N_SAMPLE: Final = 1024
"""Images that the projection is learnt from; with 512, a hundredth of the crops was lost."""

_SIDE = 48
_RIDGE = 1e-3
_ROWS_AT_ONCE = 8192


def learn_projection(
    original: NDArray[np.float32],
    versions: NDArray[np.float32],
    n_dimensions: int = N_DIMENSIONS,
) -> NDArray[np.float64]:
    """Learn which combinations of features tell images apart and ignore harmless changes.

    Args:
        original: (n, d) features of the sample, n at least 1.
        versions: (v, n, d) features of v changed versions of the same images.
        n_dimensions: Columns wanted; never more than there are features.

    Returns:
        (d, n_dimensions) float64; multiply features by it.
    """
    every = np.concatenate([original[None], versions]).astype(np.float64)
    deviations = (every - every.mean(axis=0)).reshape(-1, original.shape[1])
    within = deviations.T @ deviations / len(deviations)
    centred = every[0] - every[0].mean(axis=0)
    total = centred.T @ centred / len(centred)
    n_features = original.shape[1]
    ridge = _RIDGE * np.trace(within) / n_features + 1e-9
    first = n_features - min(n_dimensions, n_features)
    _, directions = eigh(
        total, within + ridge * np.eye(n_features), subset_by_index=[first, n_features - 1]
    )
    projection: NDArray[np.float64] = directions[:, ::-1]
    return projection


def compute_distorted_features(
    images: NDArray[np.uint8], executor: Executor | None = None
) -> NDArray[np.float32]:
    """Return the features (v, n, d) of the v distorted versions of n images."""
    described = (executor.map if executor else map)(compute_fingerprints, distort(images))
    return np.stack([fingerprints.features for fingerprints in described])


def distort(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Make the versions of each image that count as the same image.

    Crops of up to ten percent a side, turns of up to ten degrees cropped as Augmentor crops them,
    brightness and contrast changed by up to a fifth, and blur. Flips and quarter turns are left
    out: the features do not see them.

    Args:
        images: (n, s, s, 3) uint8.

    Returns:
        A list of arrays (n, t, t, 3) uint8, t at most 48, one a kind of change.
    """
    n, side = len(images), min(_SIDE, images.shape[1])
    planes = images.transpose(0, 3, 1, 2).reshape(n * 3, *images.shape[1:3]).astype(np.float32)
    planes = reduce_size(planes, side)
    rng = np.random.default_rng(0)
    zeros, ones = np.zeros(n), np.ones(n)

    def moved(
        angle: NDArray[np.float64],
        scale: NDArray[np.float64],
        dx: NDArray[np.float64],
        dy: NDArray[np.float64],
    ) -> NDArray[np.uint8]:
        transform = similarity_transform(np.zeros(n, bool), np.deg2rad(angle), scale)
        # Turning a 4:3 photograph crops its height more than its width.
        transform[:, :, :2] *= rng.uniform(0.94, 1.06, (n, 2, 1))
        transform[:, 0, 2], transform[:, 1, 2] = dx, dy
        return _images(warp_planes(planes, np.repeat(transform, 3, axis=0), side)[0], n, side)

    def recoloured(gain: NDArray[np.float64], pivot: NDArray[np.float32]) -> NDArray[np.uint8]:
        factor = np.repeat(gain, 3)[:, None, None].astype(np.float32)
        return _images((planes - pivot) * factor + pivot, n, side)

    # In coordinates from -1 to 1, a crop of a tenth on one side moves the centre by a tenth and
    # leaves nine tenths; Augmentor's turn by ten degrees leaves about 0.82.
    black = np.zeros((n * 3, 1, 1), np.float32)
    own_grey = np.repeat(planes.reshape(n, -1).mean(axis=1), 3)[:, None, None]
    corners = [
        moved(zeros, 0.9 * ones, sx * 0.1 * ones, sy * 0.1 * ones)
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1))
    ]
    shift = rng.uniform(-0.1, 0.1, (2, n))
    # Crops of a tenth on every side are the hardest to recognise: three kinds of them, not one.
    off_centre = rng.uniform(-0.04, 0.04, (2, 2, n))
    turns = [
        moved(angle, 1.0 - 0.018 * np.abs(angle), zeros, zeros)
        for angle in (-10 * ones, rng.uniform(-9, 9, n), 10 * ones)
    ]
    colours = [
        recoloured(gain, pivot)
        for pivot in (black, own_grey)
        for gain in (rng.uniform(0.8, 1.0, n), rng.uniform(1.0, 1.2, n))
    ]
    half = reduce_size(planes, side // 2)
    blurred = half.repeat(2, axis=1).repeat(2, axis=2)
    return [
        *corners,
        moved(zeros, 0.8 * ones, zeros, zeros),
        *(moved(zeros, rng.uniform(0.78, 0.86, n), dx, dy) for dx, dy in off_centre),
        moved(zeros, rng.uniform(0.85, 0.95, n), *shift),
        *turns,
        *colours,
        _images(blurred, n, blurred.shape[-1]),
    ]


def find_nearest_pairs(
    queries: NDArray[np.float32],
    base: NDArray[np.float32] | None = None,
    *,
    n_neighbours: int,
    min_similarity: float,
    progress: ProgressCallback | None = None,
) -> NDArray[np.intp]:
    """Return the pairs of nearest neighbours by cosine similarity, exactly.

    scikit-learn's brute-force search works block by block (memory grows with n, not n squared)
    on all cores and is exact.

    Args:
        queries: (n, d) float32, rows of length 1.
        base: (m, d) float32, rows of length 1; None looks among the queries themselves.
        n_neighbours: How many neighbours of each query are considered.
        min_similarity: Cosine below which a neighbour is dropped.
        progress: Called with (done, total) queries.

    Returns:
        (p, 2) integers, sorted and without repetition: indices into queries and base, or, without
        base, into queries with first < second.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to import: only where it is used

    n, among_themselves = len(queries), base is None
    found_in = queries if base is None else base
    wanted = min(n_neighbours, len(found_in) - among_themselves)
    if wanted < 1 or n == 0:
        return np.empty((0, 2), np.intp)
    # Among themselves each query finds itself too: one more is sought, and itself left out.
    search = NearestNeighbors(n_neighbors=wanted + among_themselves, algorithm="brute")
    search.fit(found_in)
    parts = []
    for start in range(0, n, _ROWS_AT_ONCE):
        distance, neighbour = search.kneighbors(queries[start : start + _ROWS_AT_ONCE])
        # For vectors of length 1, squared distance is 2 - 2 cosine.
        near = distance**2 <= 2.0 - 2.0 * min_similarity
        query = np.arange(start, start + len(near))
        if among_themselves:
            near &= neighbour != query[:, None]
        parts.append(np.stack([query[np.nonzero(near)[0]], neighbour[near]], axis=1))
        if progress:
            progress(start + len(near), n)
    pairs = np.concatenate(parts)
    if among_themselves:
        pairs.sort(axis=1)
    return np.unique(pairs, axis=0).astype(np.intp).reshape(-1, 2)


def project(
    features: NDArray[np.float32],
    rows: NDArray[np.intp],
    centre: NDArray[np.float64],
    projection: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Project some rows of features and scale each to length 1, in bounded memory.

    Args:
        features: (n, d) float32.
        rows: (r,) which rows.
        centre: (d,) what is subtracted first.
        projection: (d, k) from learn_projection.

    Returns:
        (r, k) float32.
    """
    projected = np.empty((len(rows), projection.shape[1]), np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = features[rows[start : start + _ROWS_AT_ONCE]] - centre
        projected[start : start + _ROWS_AT_ONCE] = block @ projection
    projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
    return projected


def _images(planes: NDArray[np.float32], n: int, side: int) -> NDArray[np.uint8]:
    stacked = planes.reshape(n, 3, side, side).transpose(0, 2, 3, 1)
    rounded: NDArray[np.uint8] = np.clip(np.rint(stacked), 0, 255).astype(np.uint8)
    return rounded
