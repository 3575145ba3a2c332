"""Find copies of one photograph: re-encoded, cropped, flipped, rotated, brightened.

Every image gets a fingerprint once, pairs with similar fingerprints are candidates, and only a
candidate whose fine details agree after alignment is reported. The time of the neighbour search
grows with the square of the number of images, that of all else linearly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from melanoma_lab.audit.candidates import (
    N_SAMPLE,
    compute_distorted_features,
    find_nearest_pairs,
    learn_projection,
    project,
)
from melanoma_lab.audit.descriptors import DistinctImages, check_images
from melanoma_lab.audit.verification import verify_pairs
from melanoma_lab.core.console import ProgressCallback

MIN_SCORE: Final = 0.55
"""Smallest agreement of details at which two images are one photograph; see benchmarks/."""
MIN_SIMILARITY: Final = 0.6
"""Smallest cosine of two projected fingerprints at which a pair is a candidate."""
N_NEIGHBOURS: Final = 16
"""Largest number of candidates for each image."""
IDENTICAL: Final = "identical pixels"
"""The kind of pairs with equal pixels."""

_FEW_PAIRS = 8192  # up to this number all pairs are aligned: 100 images are too few to learn from


def find_near_duplicates(
    images: NDArray[np.uint8],
    *,
    against: NDArray[np.uint8] | None = None,
    min_score: float = MIN_SCORE,
    n_neighbours: int = N_NEIGHBOURS,
    n_threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> pd.DataFrame:
    """Find the pairs of images that are copies of one photograph.

    It finds copies that were re-encoded, resized, cropped by up to about 10 % a side, flipped,
    rotated by quarter turns or by up to 10 degrees and cropped as by Augmentor, made brighter or
    darker, or several of these. Different lesions that look alike are not reported. Images without
    any detail (one colour, heavy blur) are reported only if their pixels are identical.

    Not every pair of a large group is listed: images with identical pixels are paired only with
    the first of them, and each image with its nearest neighbours; the connected components are the
    groups. The result does not depend on the order of the images.

    Args:
        images: (n, s, s, 3) uint8, s at least 32 (at least 96 for fine details); may be a memory
            map. Rectangular photographs may have been squeezed into the square.
        against: (m, t, t, 3) uint8, a second set; if given, only pairs between the two sets are
            searched.
        min_score: Smallest score of a pair, from 0 (unrelated) to 1 (identical).
        n_neighbours: Largest number of candidates for each image.
        n_threads: Number of threads; None: as many as there are CPUs.
        progress: Called with (done, total) of each step in turn: fingerprints of images, searched
            neighbours of images, compared candidate pairs.

    Returns:
        One row for each pair, sorted: `first`, `second` (int64; first < second, or, with
        `against`, the index into images and the index into against), `score` (float64), `kind`
        (str; the changes, such as "flipped, turned by 90°, rotated, cropped").

    Raises:
        ValueError: If an array has another shape or type.
    """
    check_images(images)
    if against is not None:
        check_images(against)
    # The matrix products here are small. Starting BLAS threads for each of them was ten times
    # slower, on a machine with other programs, than this pool of threads with one BLAS thread each.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(n_threads or os.cpu_count() or 1) as pool,
    ):
        settings = _SearchSettings(min_score, n_neighbours, pool, progress)
        found = (
            _find_pairs_within(images, settings)
            if against is None
            else _find_pairs_between(images, against, settings)
        )
    frame = pd.DataFrame(found, columns=["first", "second", "score", "kind"])
    frame = frame.astype({"first": np.int64, "second": np.int64, "score": np.float64, "kind": str})
    return frame.sort_values(["first", "second"], ignore_index=True)


_Row = tuple[int, int, float, str]


@dataclass(frozen=True)
class _SearchSettings:
    """Settings of the search for pairs."""

    min_score: float
    n_neighbours: int
    pool: ThreadPoolExecutor
    progress: ProgressCallback | None

    def describe(self, images: NDArray[np.uint8]) -> DistinctImages:
        return DistinctImages(images, self.pool, self.progress)

    def candidates(self, *vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        return find_nearest_pairs(
            *vectors,
            n_neighbours=self.n_neighbours,
            min_similarity=MIN_SIMILARITY,
            progress=self.progress,
        )

    def verify(
        self, source: DistinctImages, other: DistinctImages, pairs: NDArray[np.intp]
    ) -> Iterator[tuple[int, int, float, str]]:
        return verify_pairs(
            source, other, pairs, min_score=self.min_score, pool=self.pool, progress=self.progress
        )


def _find_pairs_within(images: NDArray[np.uint8], settings: _SearchSettings) -> list[_Row]:
    source = settings.describe(images)
    rows: list[_Row] = [
        (same[0], other, 1.0, IDENTICAL) for same in source.members.values() for other in same[1:]
    ]
    n = len(source.distinct)
    if n * (n - 1) // 2 <= _FEW_PAIRS:
        pairs = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        pairs = settings.candidates(*_vectors(settings.pool, source))
    for a, b, score, kind in settings.verify(source, source, pairs):
        first, second = sorted((int(source.distinct[a]), int(source.distinct[b])))
        rows.append((first, second, score, kind))
    return rows


def _find_pairs_between(
    images: NDArray[np.uint8], against: NDArray[np.uint8], settings: _SearchSettings
) -> list[_Row]:
    source, other = settings.describe(images), settings.describe(against)
    shared = sorted(source.members.keys() & other.members.keys())
    rows: list[_Row] = [
        (index, other.members[digest][0], 1.0, IDENTICAL)
        for digest in shared
        for index in source.members[digest]
    ]
    if len(source.distinct) * len(other.distinct) <= _FEW_PAIRS:
        pairs = np.argwhere(np.ones((len(source.distinct), len(other.distinct)), bool))
    else:
        vectors = _vectors(settings.pool, source, other)
        # In both directions, because an image of either set may have many copies in the other.
        ways = [settings.candidates(*way) for way in (vectors, vectors[::-1])]
        pairs = np.unique(np.concatenate([ways[0], ways[1][:, ::-1]]), axis=0)
    known = np.array([source.digests[a] == other.digests[b] for a, b in pairs], dtype=bool)
    for a, b, score, kind in settings.verify(source, other, pairs[~known]):
        second = int(other.distinct[b])
        rows += [(index, second, score, kind) for index in source.members[source.digests[a]]]
    return rows


def _vectors(pool: ThreadPoolExecutor, *sources: DistinctImages) -> list[NDArray[np.float32]]:
    """Project the distinct images of every source by one projection, learnt from all of them."""
    samples = [source.distinct[: N_SAMPLE // len(sources)] for source in sources]
    drawn = list(zip(sources, samples, strict=True))
    versions = [compute_distorted_features(source.images[sample], pool) for source, sample in drawn]
    original = np.concatenate([source.fingerprints.features[sample] for source, sample in drawn])
    projection = learn_projection(original, np.concatenate(versions, axis=1))
    centre = original.mean(axis=0, dtype=np.float64)
    return [
        project(source.fingerprints.features, source.distinct, centre, projection)
        for source in sources
    ]
