"""Verify which candidate pairs are copies of one photograph, by coarse and then fine alignment.

Most candidates are different photographs, so each step compares fewer pairs in more detail.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.audit import alignment
from melanoma_lab.audit.descriptors import MIN_SIDE, DistinctImages, reduce_size
from melanoma_lab.core.console import ProgressCallback

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


def verify_pairs(
    source: DistinctImages,
    other: DistinctImages,
    pairs: NDArray[np.intp],
    *,
    min_score: float,
    pool: Executor,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[int, int, float, str]]:
    """Yield the candidate pairs whose details agree.

    Args:
        source: The first set of images.
        other: The second set of images; may be the same set.
        pairs: (p, 2) indices into `distinct` of the first and of the second set.
        min_score: Smallest score of a pair.
        pool: Executor whose threads share the work.
        progress: Called with (done, total) pairs.

    Yields:
        The two indices, the score from 0 to 1, and the changes in words.
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
    """Align full images and score the agreement of details.

    Returns:
        The pairs, their transforms, and their scores; 0 if the transform is implausible.
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
    plausible: NDArray[np.bool_] = (
        (sizes[:, 0] < _MAX_SCALE)
        & (sizes[:, 1] > 1 / _MAX_SCALE)
        & (sizes[:, 0] < _MAX_STRETCH * sizes[:, 1])
    )
    return plausible


def _load_greys(images: NDArray[np.uint8], indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """Load some images as grey levels, reduced to a side of at most _DETAIL_SIDE."""
    unique, inverse = np.unique(indices, return_inverse=True)
    grey = np.asarray(images[unique]).mean(axis=3, dtype=np.float32)
    return reduce_size(grey, min(_DETAIL_SIDE, grey.shape[-1]))[inverse]


def _describe_change(transform: NDArray[np.float32]) -> str:
    """Describe the changes between two images in words, given their alignment.

    Args:
        transform: (2, 3) transform from the first image to the second.

    Returns:
        The changes, joined by commas; "re-encoded or brightness" if the transform is the identity.
    """
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
