"""Inspect the files of a dataset or compare them with another folder's, and cache the result.

Whether a file can be read, what it contains, and which files are copies of one photograph depend
only on the files' bytes. The result is therefore cached under a digest of all contents: the command
``audit`` computes it, and every training run on the same images loads it. Images of another folder
are found even if they are resized, cropped or rotated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.audit.near_duplicates import (
    IDENTICAL,
    MIN_SCORE,
    MIN_SIMILARITY,
    N_NEIGHBOURS,
    find_near_duplicates,
)
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.cache import (
    NOT_OPENED,
    DecodedImages,
    compute_file_digests,
    load_or_compute_json,
    load_pixels,
)
from melanoma_lab.data.decoding import DECODING_VERSION, describe_picture, read_picture
from melanoma_lab.data.image_files import find_images

#: Part of the cache's key: increase it if the same files would get another result.
INSPECTION_VERSION: Final = 2
#: Side in pixels at which images are compared. It is independent of ``dataset.image_size``, so that
#: the groups of a dataset, and so its splits, are too.
COMPARED_SIZE: Final = 128
#: Largest range of levels (of 256) in a compressed picture of a single colour.
CONSTANT_RANGE: Final = 4
#: Everything that a result depends on besides the files; part of the cache's key.
CACHE_VERSION: Final = (
    INSPECTION_VERSION,
    DECODING_VERSION,
    COMPARED_SIZE,
    CONSTANT_RANGE,
    MIN_SCORE,
    MIN_SIMILARITY,
    N_NEIGHBOURS,
)

FILE_COLUMNS = ("reason", "format", "width", "height", "colours", "constant", "pixels")
PAIR_COLUMNS = ("first", "second", "score", "kind")
#: The columns of a file that cannot be read, after the reason.
_UNKNOWN: Final = ("", 0, 0, "", False, "")
_IMAGES_AT_ONCE = 1024


@dataclass(frozen=True)
class Inspection:
    """The results of an inspection of files with n distinct contents.

    Attributes:
        files: table indexed by digest, sorted, with the columns reason (str; why the file cannot
            be decoded, empty if it can), format (str; Pillow's name), width and height (int;
            pixels, 0 if unreadable), colours (str; why they may differ from the photographed
            ones), constant (bool; a single colour) and pixels (str; equal for files with different
            bytes that decode to identical pixels, else empty). The digest of all files that could
            not be opened is empty.
        pairs: table of readable files that are copies of one photograph: first and second (str;
            digests, first < second), score (float; 0 to 1) and kind (str; the changes), sorted.
            Not every pair of a group is listed; the groups are the connected components.
    """

    files: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def unreadable(self) -> dict[str, str]:
        """Digest -> why its file cannot be decoded."""
        files = zip(self.files.index, self.files["reason"], strict=True)
        return {digest: reason for digest, reason in files if reason}


def inspect_files(
    paths: Sequence[str],
    digests: Sequence[str],
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> Inspection:
    """Inspect every distinct file, and find copies of one photograph among them.

    The digests are those of ``compute_file_digests``.
    """
    path_of = dict(sorted(zip(digests, paths, strict=True)))
    not_opened = path_of.pop("", None)
    found = load_or_compute_json(
        cache / "inspections",
        [CACHE_VERSION, list(path_of)],
        lambda: _inspect(path_of, cache=cache, threads=threads, progress=progress),
    )
    index, files = list(path_of), list(found["files"])
    if not_opened is not None:
        index.insert(0, "")
        files.insert(0, [NOT_OPENED, *_UNKNOWN])
    return Inspection(
        files=pd.DataFrame(files, columns=list(FILE_COLUMNS), index=index),
        pairs=pd.DataFrame(found["pairs"], columns=list(PAIR_COLUMNS)),
    )


def _inspect(
    path_of: Mapping[str, str], *, cache: Path, threads: int, progress: ProgressCallback | None
) -> dict[str, Any]:
    """Decode, describe and compare the files; return a result that JSON can represent."""
    digests = list(path_of)
    pixels = load_pixels(
        list(path_of.values()),
        digests,
        size=COMPARED_SIZE,
        cache=cache,
        threads=threads,
        progress=progress,
    )
    pairs = _find_pairs(pixels, digests, threads, progress)
    twins = {row[i] for row in pairs if row[3] == IDENTICAL for i in (0, 1)}
    constant = _is_constant(pixels.images)

    def describe(item: tuple[int, str]) -> list[Any]:
        row, digest = item
        reason = pixels.unreadable.get(digest, "")
        if reason:
            return [reason, *_UNKNOWN]
        same = _pixel_digest(path_of[digest]) if digest in twins else ""
        return ["", *describe_picture(path_of[digest]), bool(constant[row]), same]

    with ThreadPoolExecutor(threads) as pool:
        files = list(pool.map(describe, enumerate(digests), chunksize=32))
    counts = pd.Series([file[-1] for file in files]).value_counts()
    for file in files:  # a digest that occurs once: identical only at COMPARED_SIZE
        file[-1] = file[-1] if counts[file[-1]] > 1 else ""
    return {"files": files, "pairs": pairs}


def _find_pairs(
    pixels: DecodedImages, digests: list[str], threads: int, progress: ProgressCallback | None
) -> list[list[Any]]:
    """Find the pairs of readable files that are copies of one photograph."""
    if len(pixels.row) < 2:
        return []
    found = find_near_duplicates(pixels.images, n_threads=threads, progress=progress)
    readable = np.array([digest in pixels.row for digest in digests])
    # The pixels of an unreadable file are zeros, like those of a black picture. If it comes first,
    # black pictures are paired with it instead of with each other; this is corrected here.
    first, second = found["first"].to_numpy(), found["second"].to_numpy()
    centre = {i: int(i) for i in np.unique(first)}
    for a, b in zip(first, second, strict=True):
        if not readable[a] and readable[b] and centre[a] == a:
            centre[a] = int(b)
    rows = [
        [digests[centre[a]], digests[b], score, kind]
        for a, b, score, kind in found.itertuples(index=False, name=None)
        if readable[b] and readable[centre[a]] and centre[a] != b
    ]
    return sorted([*sorted(row[:2]), *row[2:]] for row in rows)


def _is_constant(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return whether each image has a single colour; bool, shape (n,)."""
    parts = [np.empty(0, np.uint8)]
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        block = np.asarray(images[start : start + _IMAGES_AT_ONCE])
        parts.append((block.max(axis=(1, 2)) - block.min(axis=(1, 2))).max(axis=1))
    return np.concatenate(parts) <= CONSTANT_RANGE


def _pixel_digest(path: str) -> str:
    """Compute a digest of the decoded upright picture at its original size."""
    pixels = np.asarray(read_picture(path))
    text = hashlib.sha256(repr(pixels.shape).encode())
    text.update(pixels.tobytes())
    return text.hexdigest()[:32]


#: Paths of files, and the digests of these files.
HashedFiles = tuple[Sequence[str], Sequence[str]]


def find_shared_images(
    manifest: pd.DataFrame,
    against: str,
    *,
    cache: Path,
    threads: int,
    outside_root: bool = False,
    progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """Find the images of a dataset that are also in another folder.

    Args:
        manifest: table with the columns image_id, path and digest.
        against: the other folder; all images below it are compared, without regard to metadata.
        outside_root: follow links that lead out of the other folder.

    Returns:
        image_id, other (path relative to the other folder), score (0 to 1) and kind (the changes)
        of each pair, sorted; an image may be in several pairs.

    Raises:
        UserError: the other folder is missing or has no images.
    """
    root = Path(against).expanduser()
    if not root.is_dir():
        raise UserError(f"against={against}: no such folder.")
    paths = [str(path) for path in find_images(root, outside_root=outside_root)]
    digests = compute_file_digests(paths, threads)
    pairs = find_shared_photographs(
        (list(manifest["path"]), list(manifest["digest"])),
        (paths, digests),
        cache=cache,
        threads=threads,
        progress=progress,
    )
    # Of identical files in the other folder, the first is named.
    names = {
        digest: Path(path).relative_to(root).as_posix()
        for path, digest in zip(reversed(paths), reversed(digests), strict=True)
    }
    ids = manifest.groupby("digest")["image_id"].agg(list)
    rows = [
        {"image_id": image_id, "other": names[b], "score": round(score, 3), "kind": kind}
        for a, b, score, kind in pairs
        for image_id in ids[a]
    ]
    return sorted(rows, key=lambda row: (row["image_id"], row["other"]))


def find_shared_photographs(
    own: HashedFiles,
    other: HashedFiles,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> list[list[Any]]:
    """Find pairs of files, one from each set, that are copies of one photograph; cache the result.

    Returns:
        Digest of the own file, digest of the other, score (0 to 1) and kind (the changes) of each
        pair. Files that cannot be read are in no pair.
    """
    # A file that cannot be opened has no digest, and no row in the cache of pixels.
    distinct = [sorted(set(digests) - {""}) for _, digests in (own, other)]

    def find() -> list[list[Any]]:
        first, second = (
            load_pixels(p, d, size=COMPARED_SIZE, cache=cache, threads=threads, progress=progress)
            for p, d in (own, other)
        )
        pairs = find_near_duplicates(
            first.images, against=second.images, n_threads=threads, progress=progress
        )
        # A file that cannot be read has zeros in the cache, like a black picture.
        return [
            [distinct[0][a], distinct[1][b], score, kind]
            for a, b, score, kind in pairs.itertuples(index=False, name=None)
            if distinct[0][a] in first.row and distinct[1][b] in second.row
        ]

    pairs: list[list[Any]] = load_or_compute_json(
        cache / "overlaps", [CACHE_VERSION, *distinct], find
    )
    return pairs
