"""Find images that are the same photograph: re-encoded, cropped, flipped, turned, brightened.

Every image is described once, the nearest neighbours by description are candidates, and only a
candidate whose fine details agree after alignment is reported. The cost of the neighbour search
grows with the square of the number of images, all else in proportion to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from melanoma_lab.audit import alignment
from melanoma_lab.audit.candidates import (
    N_SAMPLE,
    distorted_features,
    learn_projection,
    nearest_pairs,
    project,
)
from melanoma_lab.audit.descriptors import MIN_SIDE, check_images, describe, reduce_size

MIN_SCORE: Final = 0.55
"""Agreement of details from which on two images count as one photograph; see benchmarks/."""
MIN_SIMILARITY: Final = 0.6
"""Cosine of two descriptions below which no pair is looked at."""
N_NEIGHBOURS: Final = 12
"""Candidates looked at for each image."""
IDENTICAL: Final = "identical pixels"
"""The kind of pairs with equal pixels."""

_DETAIL_SIDE = 128  # pixels beyond this are noise and compression more often than detail
# Below these the next, dearer step is not taken; 99.5 % of even the hardest copies are above.
_COARSE_CORRELATION, _COARSE_SCORE = 0.7, 0.3
# A squeezed square may hold a 4:3 photograph: turning it by a quarter stretches by up to (4/3)^2.
_MAX_SCALE, _MAX_STRETCH = 2.0, 1.8
_PAIRS_AT_ONCE, _FINE_PAIRS_AT_ONCE = 128, 16  # arrays that fit a processor's cache
_IMAGES_AT_ONCE = 1024
_FEW_PAIRS = 8192  # so few are all aligned: what is learnt from a hundred images is not much


def find_near_duplicates(
    images: NDArray[np.uint8],
    *,
    against: NDArray[np.uint8] | None = None,
    min_score: float = MIN_SCORE,
    n_neighbours: int = N_NEIGHBOURS,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Find the pairs of images that are copies of one photograph.

    Found are copies that were re-encoded, resized, cropped by up to about a tenth a side, flipped,
    turned by quarters or by up to ten degrees and cropped as Augmentor does, made brighter or
    darker, or several of these. Different lesions that look alike are not reported. Images without
    any detail (one colour, heavy blur) are reported only where their pixels are identical.

    Not every pair of a large group is listed: images with identical pixels are tied to the first
    of them only, and each image to its nearest neighbours; the connected components are the
    groups. The result does not depend on the order of the images.

    Args:
        images: (n, s, s, 3) uint8, s at least 32 (96 and more see fine details); a memory map will
            do. Rectangular photographs may have been squeezed into the square.
        against: (m, t, t, 3) uint8; where given, pairs between the two sets are sought, none
            within either.
        min_score: Pairs below are dropped; from 0 (unrelated) to 1 (identical).
        n_neighbours: Candidates looked at for each image.
        n_threads: Threads; as many as there are processors by default.

    Returns:
        One row a pair, sorted: `first`, `second` (int64; first < second, or, with `against`, the
        index into images and the index into against), `score` (float64), `kind` (str; what changed,
        such as "flipped, turned by 90°, rotated, cropped").

    Raises:
        ValueError: If an array has another shape or type.
    """
    check_images(images)
    if against is not None:
        check_images(against)
    # The products here are small; where other programs run too, a BLAS that starts threads for each
    # of them was ten times slower than this module's own threads with one BLAS thread each.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(n_threads or os.cpu_count() or 1) as pool,
    ):
        if against is None:
            found = _within(images, min_score, n_neighbours, pool)
        else:
            found = _between(images, against, min_score, n_neighbours, pool)
    frame = pd.DataFrame(found, columns=["first", "second", "score", "kind"])
    frame = frame.astype({"first": np.int64, "second": np.int64, "score": np.float64, "kind": str})
    return frame.sort_values(["first", "second"], ignore_index=True)


_Row = tuple[int, int, float, str]


class _Source:
    """A set of images with their digests and fingerprints.

    `distinct` holds the index of one image of each digest, in the order of the digests and not of
    the images, so that nothing that is computed from it depends on the order of the images.
    """

    def __init__(self, images: NDArray[np.uint8], pool: ThreadPoolExecutor) -> None:
        self.images = images
        starts = range(0, len(images), _IMAGES_AT_ONCE)
        blocks = pool.map(lambda start: _digests(images[start : start + _IMAGES_AT_ONCE]), starts)
        self.members: dict[bytes, list[int]] = {}
        for index, digest in enumerate(digest for block in blocks for digest in block):
            self.members.setdefault(digest, []).append(index)
        self.digests = sorted(self.members)
        self.distinct = np.array([self.members[digest][0] for digest in self.digests], np.intp)
        self.fingerprints = describe(images, pool)


def _within(
    images: NDArray[np.uint8], min_score: float, n_neighbours: int, pool: ThreadPoolExecutor
) -> list[_Row]:
    source = _Source(images, pool)
    rows: list[_Row] = [
        (same[0], other, 1.0, IDENTICAL) for same in source.members.values() for other in same[1:]
    ]
    n = len(source.distinct)
    if n * (n - 1) // 2 <= _FEW_PAIRS:
        pairs = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        (vectors,) = _vectors(pool, source)
        pairs = nearest_pairs(vectors, n_neighbours=n_neighbours, min_similarity=MIN_SIMILARITY)
    for a, b, score, kind in _verified(source, source, pairs, min_score, pool):
        first, second = sorted((int(source.distinct[a]), int(source.distinct[b])))
        rows.append((first, second, score, kind))
    return rows


def _between(
    images: NDArray[np.uint8],
    against: NDArray[np.uint8],
    min_score: float,
    n_neighbours: int,
    pool: ThreadPoolExecutor,
) -> list[_Row]:
    source, other = _Source(images, pool), _Source(against, pool)
    shared = sorted(source.members.keys() & other.members.keys())
    rows: list[_Row] = [
        (index, other.members[digest][0], 1.0, IDENTICAL)
        for digest in shared
        for index in source.members[digest]
    ]
    if len(source.distinct) * len(other.distinct) <= _FEW_PAIRS:
        pairs = np.argwhere(np.ones((len(source.distinct), len(other.distinct)), bool))
    else:
        vectors = _vectors(pool, source, other)
        # Both ways: one image of either set may have many copies in the other.
        ways = [
            nearest_pairs(*way, n_neighbours=n_neighbours, min_similarity=MIN_SIMILARITY)
            for way in (vectors, vectors[::-1])
        ]
        pairs = np.unique(np.concatenate([ways[0], ways[1][:, ::-1]]), axis=0)
    known = np.array([source.digests[a] == other.digests[b] for a, b in pairs], dtype=bool)
    for a, b, score, kind in _verified(source, other, pairs[~known], min_score, pool):
        second = int(other.distinct[b])
        rows += [(index, second, score, kind) for index in source.members[source.digests[a]]]
    return rows


def _vectors(pool: ThreadPoolExecutor, *sources: _Source) -> list[NDArray[np.float32]]:
    """Project the distinct images of every source by one projection, learnt from all of them."""
    samples = [source.distinct[: N_SAMPLE // len(sources)] for source in sources]
    drawn = list(zip(sources, samples, strict=True))
    # The distorted versions need one size for all; the smallest loses nothing that they keep.
    versions = [distorted_features(source.images[sample], pool) for source, sample in drawn]
    original = np.concatenate([source.fingerprints.features[sample] for source, sample in drawn])
    projection = learn_projection(original, np.concatenate(versions, axis=1))
    centre = original.mean(axis=0, dtype=np.float64)
    return [
        project(source.fingerprints.features, source.distinct, centre, projection)
        for source in sources
    ]


def _verified(
    source: _Source,
    other: _Source,
    pairs: NDArray[np.intp],
    min_score: float,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, int, float, str]]:
    """Yield the pairs (positions in `distinct`) whose details agree, with score and kind."""

    def chunks(length: int, size: int) -> list[slice]:
        return [slice(start, start + size) for start in range(0, length, size)]

    coarse = pool.map(
        lambda chunk: _align_coarsely(source, other, pairs[chunk]),
        chunks(len(pairs), _PAIRS_AT_ONCE),
    )
    survivors = [part for part in coarse if len(part[0])]
    if not survivors:
        return
    pairs = np.concatenate([part[0] for part in survivors])
    transforms = np.concatenate([part[1] for part in survivors])
    fine = pool.map(
        lambda chunk: _compare_finely(source, other, pairs[chunk], transforms[chunk]),
        chunks(len(pairs), _FINE_PAIRS_AT_ONCE),
    )
    for kept, alignments, scores in fine:
        for (a, b), transform, score in zip(kept, alignments, scores, strict=True):
            if score >= min_score:
                yield int(a), int(b), float(score), _kind(transform)


def _align_coarsely(
    source: _Source, other: _Source, pairs: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Align fingerprints; return the pairs that may be copies, and their transforms."""
    first = source.fingerprints.take(source.distinct[pairs[:, 0]])
    second = other.fingerprints.take(other.distinct[pairs[:, 1]])
    greys = [prints.thumbnails.astype(np.float32) for prints in (first, second)]
    side = min(grey.shape[-1] for grey in greys)

    def bands(size: int, sigma: float) -> list[NDArray[np.float32]]:
        return [alignment.band_pass(reduce_size(grey, size), sigma) for grey in greys]

    small = bands(MIN_SIDE // 2, MIN_SIDE / 12)
    by_turn, turn_correlation = alignment.refine(
        small[0], small[1], alignment.turn_hypotheses(first.harmonics, second.harmonics), 5
    )
    # Which of the eight flips and quarter turns it is, only finer structure tells.
    medium = bands(MIN_SIDE, MIN_SIDE / 16)
    by_shift, shift_correlation = alignment.refine(
        small[0], small[1], alignment.shift_hypotheses(medium[0], medium[1]), 5
    )
    better = shift_correlation > turn_correlation
    transforms = np.where(better[:, None, None], by_shift, by_turn)
    transforms, correlation = alignment.refine(medium[0], medium[1], transforms, 4)
    keep = correlation >= _COARSE_CORRELATION
    for size in (MIN_SIDE, side):
        pairs, transforms, greys = pairs[keep], transforms[keep], [grey[keep] for grey in greys]
        if size > MIN_SIDE:
            large = bands(size, size / 16)
            transforms, _ = alignment.refine(large[0], large[1], transforms, 4)
        reduced = [reduce_size(grey, size) for grey in greys]
        score = alignment.detail_agreement(reduced[0], reduced[1], transforms, size / 32)
        keep = score >= _COARSE_SCORE
    return pairs[keep], transforms[keep]


def _compare_finely(
    source: _Source, other: _Source, pairs: NDArray[np.intp], transforms: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Align pixels and score the agreement of details."""
    first = _greys(source.images, source.distinct[pairs[:, 0]])
    second = _greys(other.images, other.distinct[pairs[:, 1]])
    side = min(first.shape[-1], second.shape[-1])
    first, second = reduce_size(first, side), reduce_size(second, side)
    sigma = side / 32
    details = [alignment.band_pass(grey, sigma) for grey in (first, second)]
    transforms, _ = alignment.refine(details[0], details[1], transforms, 3)
    scores = alignment.detail_agreement(first, second, transforms, sigma)
    return pairs, transforms, np.where(_plausible(transforms), scores, 0).astype(np.float32)


def _plausible(transforms: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell transforms that lead from a photograph to a copy from those that distort one."""
    sizes = np.linalg.svd(transforms[:, :, :2], compute_uv=False)
    plausible: NDArray[np.bool_] = (
        (sizes[:, 0] < _MAX_SCALE)
        & (sizes[:, 1] > 1 / _MAX_SCALE)
        & (sizes[:, 0] < _MAX_STRETCH * sizes[:, 1])
    )
    return plausible


def _greys(images: NDArray[np.uint8], indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """Read some images, each once, as grey levels reduced to at most _DETAIL_SIDE."""
    unique, inverse = np.unique(indices, return_inverse=True)
    grey = np.asarray(images[unique]).mean(axis=3, dtype=np.float32)
    return reduce_size(grey, min(_DETAIL_SIDE, grey.shape[-1]))[inverse]


def _kind(transform: NDArray[np.float32]) -> str:
    """Say in words what an alignment undoes.

    Args:
        transform: (2, 3), see alignment.

    Returns:
        The changes, joined by commas; "re-encoded or brightness" where nothing moved.
    """
    linear, shift = transform[:, :2].astype(np.float64), transform[:, 2]
    mirrored = bool(np.linalg.det(linear) < 0)
    # Both mirror axes are flips: what is left after mirroring x instead of y differs by a half
    # turn, so a flip's angle counts modulo 180 degrees.
    proper = linear @ np.diag([1.0, -1.0]) if mirrored else linear
    angle = np.degrees(np.arctan2(proper[1, 0] - proper[0, 1], proper[0, 0] + proper[1, 1]))
    quarters = round(angle / 90)
    rest = abs(angle - 90 * quarters)
    turn = 90 * (quarters % 4)
    if mirrored:
        turn %= 180
    sizes = np.linalg.svd(linear, compute_uv=False)
    moved = bool(np.abs(np.log(sizes)).max() > 0.03 or np.abs(shift).max() > 0.03)
    parts = [
        "flipped" if mirrored else "",
        f"turned by {min(turn, 360 - turn)}°" if turn else "",
        "rotated" if rest > 1.5 else "",
        "cropped" if moved else "",
    ]
    return ", ".join(part for part in parts if part) or "re-encoded or brightness"


def _digests(images: NDArray[np.uint8]) -> list[bytes]:
    return [
        blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
        for image in np.asarray(images)
    ]
