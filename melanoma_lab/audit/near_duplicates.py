"""Find copies of one photograph: re-encoded, cropped, flipped, rotated, brightened.

Every image gets a fingerprint once, pairs with similar fingerprints are candidates, and only a
candidate whose fine details agree after alignment is reported. Most candidates are different
photographs, so each step of the alignment compares fewer pairs in more detail. The time of the
neighbour search grows with the square of the number of images, that of all else linearly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from melanoma_lab.audit import alignment
from melanoma_lab.audit.candidates import (
    N_SAMPLE,
    compute_distorted_features,
    find_nearest_pairs,
    learn_projection,
    project,
)
from melanoma_lab.audit.descriptors import MIN_SIDE, DistinctImages, check_images, reduce_size
from melanoma_lab.core.console import ProgressCallback

#: Smallest agreement of details at which two images are one photograph; see benchmarks/.
MIN_SCORE: Final = 0.55
#: Smallest cosine of two projected fingerprints at which a pair is a candidate.
MIN_SIMILARITY: Final = 0.6
#: Largest number of candidates for each image.
N_NEIGHBOURS: Final = 16
#: The kind of pairs with equal pixels.
IDENTICAL: Final = "identical pixels"

_FEW_PAIRS = 8192  # up to this number all pairs are aligned: 100 images are too few to learn from
_DETAIL_SIDE = 128  # larger images add more noise and compression artefacts than detail
# Below these a pair is dropped before the next, slower step; 99.8 % of even the hardest copies are
# above.
_COARSE_CORRELATION, _COARSE_SCORE = 0.6, 0.25
# Below this a pair is aligned again from other starting points: the first alignment of a round
# lesion may be a wrong rotation in which all coarse structure agrees.
_DOUBTFUL_SCORE = 0.6
_SCALES = (0.8, 0.9, 1.0, 1 / 0.9, 1 / 0.8)
# The square may be a squeezed 4:3 photograph: a quarter turn of it stretches by up to (4/3)^2.
_MAX_SCALE, _MAX_STRETCH = 2.0, 1.8
_PAIRS_AT_ONCE, _FINE_PAIRS_AT_ONCE = 128, 16  # so that arrays fit the CPU's cache
_Row = tuple[int, int, float, str]
_Search = Callable[..., NDArray[np.intp]]
_Verify = Callable[..., Iterator[_Row]]


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
        search = partial(
            find_nearest_pairs,
            n_neighbours=n_neighbours,
            min_similarity=MIN_SIMILARITY,
            progress=progress,
        )
        verify = partial(verify_pairs, min_score=min_score, pool=pool, progress=progress)
        source = DistinctImages(images, pool, progress)
        if against is None:
            found = _find_pairs_within(source, pool, search, verify)
        else:
            other = DistinctImages(against, pool, progress)
            found = _find_pairs_between(source, other, pool, search, verify)
    frame = pd.DataFrame(found, columns=["first", "second", "score", "kind"])
    frame = frame.astype({"first": np.int64, "second": np.int64, "score": np.float64, "kind": str})
    return frame.sort_values(["first", "second"], ignore_index=True)


def _find_pairs_within(
    source: DistinctImages, pool: ThreadPoolExecutor, search: _Search, verify: _Verify
) -> list[_Row]:
    """Find the pairs of one set."""
    rows: list[_Row] = [
        (same[0], other, 1.0, IDENTICAL) for same in source.members.values() for other in same[1:]
    ]
    n = len(source.distinct)
    if n * (n - 1) // 2 <= _FEW_PAIRS:
        pairs = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        pairs = search(*_vectors(pool, source))
    for a, b, score, kind in verify(source, source, pairs):
        first, second = sorted((int(source.distinct[a]), int(source.distinct[b])))
        rows.append((first, second, score, kind))
    return rows


def _find_pairs_between(
    source: DistinctImages,
    other: DistinctImages,
    pool: ThreadPoolExecutor,
    search: _Search,
    verify: _Verify,
) -> list[_Row]:
    """Find the pairs of an image of one set and an image of another."""
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
        # In both directions, because an image of either set may have many copies in the other.
        ways = [search(*way) for way in (vectors, vectors[::-1])]
        pairs = np.unique(np.concatenate([ways[0], ways[1][:, ::-1]]), axis=0)
    known = np.array([source.digests[a] == other.digests[b] for a, b in pairs], dtype=bool)
    for a, b, score, kind in verify(source, other, pairs[~known]):
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


def verify_pairs(
    source: DistinctImages,
    other: DistinctImages,
    pairs: NDArray[np.intp],
    *,
    min_score: float,
    pool: Executor,
    progress: ProgressCallback | None = None,
) -> Iterator[_Row]:
    """Yield the candidate pairs whose details agree, with score and changes in words.

    Args:
        other: The second set of images; may be the same set.
        pairs: (p, 2) indices into `distinct` of the first and of the second set.
    """

    def chunks(length: int, size: int) -> list[slice]:
        return [slice(start, start + size) for start in range(0, length, size)]

    survivors = []
    coarse = chunks(len(pairs), _PAIRS_AT_ONCE)
    for chunk, part in zip(
        coarse,
        pool.map(lambda chunk: _align_coarsely(source, other, pairs[chunk]), coarse),
        strict=True,
    ):
        if len(part[0]):
            survivors.append(part)
        if progress:
            progress(min(chunk.stop, len(pairs)), len(pairs))
    if not survivors:
        return
    pairs = np.concatenate([part[0] for part in survivors])
    transforms = np.concatenate([part[1] for part in survivors])
    fine = pool.map(
        lambda chunk: _compare_finely(source, other, pairs[chunk], transforms[chunk]),
        chunks(len(pairs), _FINE_PAIRS_AT_ONCE),
    )
    for compared, alignments, scores in fine:
        for (a, b), transform, score in zip(compared, alignments, scores, strict=True):
            if score >= min_score:
                yield int(a), int(b), float(score), _describe_change(transform)


def _align_coarsely(
    source: DistinctImages, other: DistinctImages, pairs: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Align fingerprints; return the pairs that may be copies, and their transforms."""
    first = source.fingerprints.take(source.distinct[pairs[:, 0]])
    second = other.fingerprints.take(other.distinct[pairs[:, 1]])
    thumbnails = [prints.thumbnails.astype(np.float32) for prints in (first, second)]
    side = min(grey.shape[-1] for grey in thumbnails)
    greys = [reduce_size(grey, MIN_SIDE) for grey in thumbnails]
    small = [alignment.band_pass(reduce_size(grey, MIN_SIDE // 2), MIN_SIDE / 12) for grey in greys]
    by_turn, turn_correlation = alignment.refine(
        small[0], small[1], alignment.propose_turns(first.harmonics, second.harmonics), 5
    )
    # Only finer structure can distinguish the eight flips and quarter turns.
    bands = [alignment.band_pass(grey, MIN_SIDE / 16) for grey in greys]
    by_shift, shift_correlation = alignment.refine(
        small[0], small[1], alignment.propose_shifts(bands[0], bands[1]), 5
    )
    better = shift_correlation > turn_correlation
    transforms = np.where(better[:, None, None], by_shift, by_turn)
    transforms, correlation = alignment.refine(bands[0], bands[1], transforms, 4)
    keep = correlation >= _COARSE_CORRELATION
    pairs, transforms = pairs[keep], transforms[keep]
    thumbnails, greys, bands = ([each[keep] for each in x] for x in (thumbnails, greys, bands))
    score = alignment.score_detail_agreement(greys[0], greys[1], transforms, MIN_SIDE / 32)
    doubtful = np.flatnonzero((score >= _COARSE_SCORE) & (score < _DOUBTFUL_SCORE))
    if len(doubtful):
        again, score_again = _align_again(*([each[doubtful] for each in x] for x in (greys, bands)))
        better = score_again > score[doubtful]
        transforms[doubtful[better]], score[doubtful[better]] = again[better], score_again[better]
    keep = score >= _COARSE_SCORE
    pairs, transforms = pairs[keep], transforms[keep]
    if side > MIN_SIDE:
        large = [reduce_size(grey[keep], side) for grey in thumbnails]
        details = [alignment.band_pass(grey, side / 16) for grey in large]
        transforms, _ = alignment.refine(details[0], details[1], transforms, 4)
        keep = (
            alignment.score_detail_agreement(large[0], large[1], transforms, side / 32)
            >= _COARSE_SCORE
        )
        pairs, transforms = pairs[keep], transforms[keep]
    return pairs, transforms


def _align_again(
    greys: list[NDArray[np.float32]], bands: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Align by the finest structure at several scales; return transforms and scores."""
    finest = [alignment.band_pass(grey, MIN_SIDE / 32) for grey in greys]
    transforms = alignment.propose_shifts(finest[0], finest[1], _SCALES)
    transforms, _ = alignment.refine(bands[0], bands[1], transforms, 4)
    return transforms, alignment.score_detail_agreement(
        greys[0], greys[1], transforms, MIN_SIDE / 32
    )


def _compare_finely(
    source: DistinctImages,
    other: DistinctImages,
    pairs: NDArray[np.intp],
    transforms: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Align full images; return the pairs, their transforms and the agreement of details.

    It is 0 if the transform is implausible.
    """
    first = _load_greys(source.images, source.distinct[pairs[:, 0]])
    second = _load_greys(other.images, other.distinct[pairs[:, 1]])
    side = min(first.shape[-1], second.shape[-1])
    first, second = reduce_size(first, side), reduce_size(second, side)
    sigma = side / 32
    details = [alignment.band_pass(grey, sigma) for grey in (first, second)]
    transforms, _ = alignment.refine(details[0], details[1], transforms, 3)
    scores = alignment.score_detail_agreement(first, second, transforms, sigma)
    return pairs, transforms, np.where(_is_plausible(transforms), scores, 0).astype(np.float32)


def _is_plausible(transforms: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which transforms can map a photograph to a copy without strong distortion."""
    sizes = np.linalg.svd(transforms[:, :, :2], compute_uv=False)
    return (
        (sizes[:, 0] < _MAX_SCALE)
        & (sizes[:, 1] > 1 / _MAX_SCALE)
        & (sizes[:, 0] < _MAX_STRETCH * sizes[:, 1])
    )


def _load_greys(images: NDArray[np.uint8], indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """Load some images as grey levels, reduced to a side of at most _DETAIL_SIDE."""
    unique, inverse = np.unique(indices, return_inverse=True)
    grey = np.asarray(images[unique]).mean(axis=3, dtype=np.float32)
    return reduce_size(grey, min(_DETAIL_SIDE, grey.shape[-1]))[inverse]


def _describe_change(transform: NDArray[np.float32]) -> str:
    """Describe in words the changes between two images whose alignment is given."""
    linear, shift = transform[:, :2].astype(np.float64), transform[:, 2]
    mirrored = bool(np.linalg.det(linear) < 0)
    # A flip may mirror either axis: the rotation that remains after mirroring x instead of y
    # differs by a half turn, so the angle of a flip counts modulo 180 degrees.
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
