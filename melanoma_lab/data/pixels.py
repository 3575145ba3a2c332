"""The decode cache: every image is decoded and resized once, for every later run.

A uint8 array on disk, keyed by the content digests and the size, is memory-mapped by every run,
arm, seed and process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from melanoma_lab.data.sealed import ArrayFile, kept, new_array, open_array, read_json, write_json
from melanoma_lab.progress import Progress

#: Part of every key: raise it when the same file would come out as other pixels.
DECODING_VERSION = 1


@dataclass(frozen=True)
class Pixels:
    """Decoded images.

    Attributes:
        images: uint8, shape (m, size, size, 3), RGB, memory-mapped and read only; one for every
            distinct digest.
        row: digest -> index into ``images``; digests of unreadable files are not in it.
        unreadable: digest -> why its file could not be decoded.
    """

    images: NDArray[np.uint8]
    row: dict[str, int]
    unreadable: dict[str, str]


def file_digests(paths: Sequence[str], threads: int) -> list[str]:
    """SHA-256 of every file's bytes, in hexadecimal; empty where a file cannot be opened."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_file_digest, paths, chunksize=32))


def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def decode(path: str, size: int) -> NDArray[np.uint8]:
    """Decode one image file and resize it, without keeping its proportions.

    The orientation that the camera recorded is applied; the first frame of an animation counts.
    Resizing is bilinear with the support widened when shrinking, so nothing aliases.

    Args:
        path: an image file.
        size: side in pixels.

    Returns:
        uint8, shape (size, size, 3), RGB.

    Raises:
        ValueError: the file is empty, truncated, too large to be a photograph, or not an image.
    """
    try:
        with Image.open(path) as opened:
            # A JPEG far larger than needed is decoded at a half, quarter or eighth: much faster.
            opened.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(opened)
            resized = upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(resized)
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        raise ValueError("an empty file" if empty else "not an image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def load_pixels(
    paths: Sequence[str],
    digests: Sequence[str],
    *,
    size: int,
    cache: Path,
    threads: int,
    progress: Progress | None = None,
) -> Pixels:
    """Memory-map the decoded images, decoding them first where the cache has none that are whole.

    Two processes may build the same array at once: each writes a file of its own, and the last to
    finish puts its own, identical one in place.

    Args:
        paths: n image files.
        digests: n digests of their bytes, as ``file_digests`` gives them.
        size: side in pixels.
        cache: the lab's cache folder.
        threads: decoding threads.
        progress: called with (done, total) while decoding.

    Raises:
        RunError: the cache cannot be written.
    """
    path_of = dict(sorted(zip(digests, paths, strict=True)))
    key = hashlib.sha256(json.dumps([DECODING_VERSION, size, list(path_of)]).encode()).hexdigest()[
        :32
    ]
    folder = cache / "pixels"
    array, verdicts = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(path_of), size, size, 3)

    def load() -> tuple[NDArray[np.uint8], dict[str, str]] | None:
        unreadable = read_json(verdicts)
        images = open_array(array, shape)
        return None if images is None or unreadable is None else (images, unreadable)

    def build() -> None:
        with new_array(array, shape) as file:
            # The array comes last: where it is, the verdicts are.
            write_json(verdicts, _decode_all(file, path_of, size, threads, progress))

    images, unreadable = kept(array, load, build)
    row = {digest: i for i, digest in enumerate(path_of) if digest not in unreadable}
    return Pixels(images, row, unreadable)


def _decode_all(
    file: ArrayFile,
    path_of: Mapping[str, str],
    size: int,
    threads: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Decode every file; returns digest -> reason of those that cannot be read."""

    def fill(item: tuple[int, tuple[str, str]]) -> tuple[str, str]:
        i, (digest, path) = item
        try:
            pixels = decode(path, size)
        except ValueError as error:
            return digest, str(error)
        file.write(i, pixels)
        return digest, ""

    reasons: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            for digest, reason in pool.map(fill, enumerate(path_of.items())):
                reasons[digest] = reason
                if progress:
                    progress(len(reasons), len(path_of))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # a full disk stays full
            raise
    return {digest: reason for digest, reason in reasons.items() if reason}
