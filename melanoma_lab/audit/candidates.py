"""Find candidate pairs of images: a learnt projection and exact nearest neighbours.

The projection is Fisher's linear discriminant with one class for each image: a sample of the
images is rotated, cropped, brightened and blurred, and the directions kept are those along which
different images differ most compared with the versions of one image. It is learnt from the images
that are searched, so it needs no stored weights and fits any source of images.

Why this method: a perceptual hash (as in imagehash, imagededup or pHash) changes with every
rotation and with crops of a tenth; benchmarks/near_duplicates.py compares one with this method.
Approximate neighbours (HNSW, NN-descent) depend on the order of insertion or on threads; groups,
and so splits, must not. scikit-learn's exact search is a dependency anyway and fast enough for
hundreds of thousands of images.
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

#: Number of dimensions of the projection; 32 to 64 found the same copies among 10,000 images.
N_DIMENSIONS: Final = 48
#: Number of images that the projection is learnt from; with 512, 1 % of the crops were missed.
N_SAMPLE: Final = 1024

_SIDE = 48
_RIDGE = 1e-3
_ROWS_AT_ONCE = 8192


def learn_projection(
    original: NDArray[np.float32], versions: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Learn a projection of features that distinguishes images and ignores harmless changes.

    Args:
        original: (n, d) features of the sample, n at least 1.
        versions: (v, n, d) features of v changed versions of the same images.

    Returns:
        (d, N_DIMENSIONS) float64, the matrix to multiply features by.
    """
    every = np.concatenate([original[None], versions]).astype(np.float64)
    deviations = (every - every.mean(axis=0)).reshape(-1, original.shape[1])
    within = deviations.T @ deviations / len(deviations)
    centred = every[0] - every[0].mean(axis=0)
    total = centred.T @ centred / len(centred)
    n_features = original.shape[1]
    ridge = _RIDGE * np.trace(within) / n_features + 1e-9
    first = n_features - min(N_DIMENSIONS, n_features)
    _, directions = eigh(
        total, within + ridge * np.eye(n_features), subset_by_index=[first, n_features - 1]
    )
    projection: NDArray[np.float64] = directions[:, ::-1]
    return projection


def compute_distorted_features(
    images: NDArray[np.uint8], executor: Executor
) -> NDArray[np.float32]:
    """Compute the features, shape (v, n, d), of v distorted versions of n images."""
    described = executor.map(compute_fingerprints, distort(images))
    return np.stack([fingerprints.features for fingerprints in described])


def distort(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Make versions of each image that count as the same photograph.

    The changes are crops of up to 10 % a side, rotations of up to 10 degrees cropped as by
    Augmentor, changes of brightness and contrast of up to 20 %, and blur. Flips and quarter turns
    are left out, because they do not change the features.

    Args:
        images: (n, s, s, 3) uint8.

    Returns:
        A list of arrays (n, t, t, 3) uint8, t at most 48, one for each kind of change.
    """
    n, side = len(images), min(_SIDE, images.shape[1])
    planes = images.transpose(0, 3, 1, 2).reshape(n * 3, *images.shape[1:3]).astype(np.float32)
    planes = reduce_size(planes, side)
    rng = np.random.default_rng(0)
    zeros, ones = np.zeros(n), np.ones(n)

    def move(
        angle: NDArray[np.float64],
        scale: NDArray[np.float64],
        dx: NDArray[np.float64],
        dy: NDArray[np.float64],
    ) -> NDArray[np.uint8]:
        transform = similarity_transform(np.zeros(n, bool), np.deg2rad(angle), scale)
        # Rotating a 4:3 photograph crops its height more than its width.
        transform[:, :, :2] *= rng.uniform(0.94, 1.06, (n, 2, 1))
        transform[:, 0, 2], transform[:, 1, 2] = dx, dy
        return _images(warp_planes(planes, np.repeat(transform, 3, axis=0), side)[0], n, side)

    def recolour(gain: NDArray[np.float64], pivot: NDArray[np.float32]) -> NDArray[np.uint8]:
        factor = np.repeat(gain, 3)[:, None, None].astype(np.float32)
        return _images((planes - pivot) * factor + pivot, n, side)

    # In coordinates from -1 to 1, cropping 10 % on one side moves the centre by 0.1 and leaves a
    # scale of 0.9; Augmentor's rotation by 10 degrees leaves about 0.82.
    black = np.zeros((n * 3, 1, 1), np.float32)
    own_grey = np.repeat(planes.reshape(n, -1).mean(axis=1), 3)[:, None, None]
    corners = [
        move(zeros, 0.9 * ones, sx * 0.1 * ones, sy * 0.1 * ones)
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1))
    ]
    shift = rng.uniform(-0.1, 0.1, (2, n))
    # Crops of 10 % on every side are the hardest to recognise, so three kinds of them are learnt.
    off_centre = rng.uniform(-0.04, 0.04, (2, 2, n))
    turns = [
        move(angle, 1.0 - 0.018 * np.abs(angle), zeros, zeros)
        for angle in (-10 * ones, rng.uniform(-9, 9, n), 10 * ones)
    ]
    colours = [
        recolour(gain, pivot)
        for pivot in (black, own_grey)
        for gain in (rng.uniform(0.8, 1.0, n), rng.uniform(1.0, 1.2, n))
    ]
    half = reduce_size(planes, side // 2)
    blurred = half.repeat(2, axis=1).repeat(2, axis=2)
    return [
        *corners,
        move(zeros, 0.8 * ones, zeros, zeros),
        *(move(zeros, rng.uniform(0.78, 0.86, n), dx, dy) for dx, dy in off_centre),
        move(zeros, rng.uniform(0.85, 0.95, n), *shift),
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
    """Find the exact pairs of nearest neighbours by cosine similarity.

    scikit-learn's brute-force search works block by block, so that memory grows with n and not with
    n squared, and uses all cores.

    Args:
        queries: (n, d) float32, rows of length 1.
        base: (m, d) float32, rows of length 1; None: search among the queries themselves.
        min_similarity: Cosine below which a neighbour is dropped.

    Returns:
        (p, 2) integers, sorted and unique: indices into queries and base; without base, two indices
        into queries, the smaller first.
    """
    from sklearn.neighbors import NearestNeighbors  # imported here because it is slow to import

    n, among_themselves = len(queries), base is None
    found_in = queries if base is None else base
    wanted = min(n_neighbours, len(found_in) - among_themselves)
    if wanted < 1 or n == 0:
        return np.empty((0, 2), np.intp)
    # Without base each query also finds itself, so one more neighbour is searched and dropped.
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
    """Project some rows of features and scale each to length 1, in blocks to save memory.

    Args:
        features: (n, d) float32.
        rows: (r,) indices of the rows.
        centre: (d,) values to subtract first.
        projection: (d, k) matrix from learn_projection.

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
    return np.clip(np.rint(stacked), 0, 255).astype(np.uint8)
