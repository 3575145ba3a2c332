"""Find the images of a dataset that another folder has too, even if resized, cropped or rotated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.audit.inspection import CACHE_VERSION, COMPARED_SIZE
from melanoma_lab.audit.near_duplicates import find_near_duplicates
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.cache import load_or_compute_json
from melanoma_lab.data.image_files import find_images
from melanoma_lab.data.pixel_cache import compute_file_digests, load_pixels

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
        cache: the lab's cache folder.
        threads: number of threads for decoding and comparing.
        outside_root: follow links that lead out of the other folder.
        progress: called with (done, total) while decoding and comparing.

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
    return _format_pairs(manifest, pairs, _names(paths, digests, root))


def find_shared_photographs(
    own: HashedFiles,
    other: HashedFiles,
    *,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> list[list[Any]]:
    """Find pairs of files, one from each set, that are copies of one photograph; cache the result.

    Args:
        own: n paths and the digests of their files, from ``compute_file_digests``.
        other: paths and digests of the other set.
        cache: the lab's cache folder.
        threads: number of threads for decoding and comparing.
        progress: called with (done, total) while decoding and comparing.

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


def _names(paths: Sequence[str], digests: Sequence[str], root: Path) -> dict[str, str]:
    """Map each digest to the relative path of the first file with it."""
    names: dict[str, str] = {}
    for path, digest in zip(paths, digests, strict=True):
        names.setdefault(digest, Path(path).relative_to(root).as_posix())
    return names


def _format_pairs(
    manifest: pd.DataFrame, pairs: list[list[Any]], names: dict[str, str]
) -> list[dict[str, Any]]:
    ids: dict[str, list[str]] = {}
    for image_id, digest in zip(manifest["image_id"], manifest["digest"], strict=True):
        ids.setdefault(digest, []).append(image_id)
    rows = [
        {"image_id": image_id, "other": names[b], "score": round(score, 3), "kind": kind}
        for a, b, score, kind in pairs
        for image_id in ids[a]
    ]
    return sorted(rows, key=lambda row: (row["image_id"], row["other"]))
