"""The decode cache: every image is decoded and resized once, for every later run.

A uint8 array on disk, keyed by the content digests and the size, is memory-mapped by every run,
arm, seed and process.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.data.decoding import DECODING_VERSION, decode
from melanoma_lab.errors import RunError
from melanoma_lab.progress import Progress

#: Why a file without a digest is unreadable. It is not kept: it says nothing about the content.
NOT_OPENED = "cannot be opened (is it there, is it a file, may you read it?)"


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
    """SHA-256 of every file's bytes, in hexadecimal; empty where a file cannot be read."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_file_digest, paths, chunksize=32))


def _file_digest(path: str) -> str:
    try:
        if not Path(path).is_file():  # opening a named pipe would wait for ever
            return ""
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def load_pixels(
    paths: Sequence[str],
    digests: Sequence[str],
    *,
    size: int,
    cache: Path,
    threads: int,
    progress: Progress | None = None,
) -> Pixels:
    """Memory-map the decoded images, decoding them first where the cache does not have them.

    Two processes may build the same array at once: each writes a file of its own, and the last to
    finish puts its own, identical one in place.

    Args:
        paths: n image files.
        digests: n digests of their bytes, as ``file_digests`` gives them.
        size: side in pixels.
        cache: the lab's cache folder.
        threads: decoding threads.
        progress: called with (done, total) while decoding.
    """
    path_of = dict(sorted(zip(digests, paths, strict=True)))
    not_opened = {"": NOT_OPENED} if path_of.pop("", None) is not None else {}
    if not path_of:
        return Pixels(np.empty((0, size, size, 3), np.uint8), {}, not_opened)
    key = hashlib.sha256(json.dumps([DECODING_VERSION, size, list(path_of)]).encode()).hexdigest()[
        :32
    ]
    folder = cache / "pixels"
    array, verdicts = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(path_of), size, size, 3)
    kept = _open(array, verdicts, shape)
    if kept is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
            built = _build(Path(scratch), path_of, size=size, threads=threads, progress=progress)
            # The array comes last: where it is, the verdicts are.
            built[0].replace(verdicts)
            built[1].replace(array)
        kept = _open(array, verdicts, shape)
    if kept is None:
        raise RunError(f"The decoded images could not be read back from {array}.")
    images, unreadable = kept
    row = {digest: i for i, digest in enumerate(path_of) if digest not in unreadable}
    return Pixels(images, row, unreadable | not_opened)


def _open(
    array: Path, verdicts: Path, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], dict[str, str]] | None:
    """What the cache keeps; None where it is not there, or not what was put there."""
    try:
        images = np.load(array, mmap_mode="r", allow_pickle=False)
        unreadable = json.loads(verdicts.read_text())
    except (OSError, ValueError, EOFError):
        return None
    if images.shape != shape or images.dtype != np.uint8 or not isinstance(unreadable, dict):
        return None
    return images, unreadable


def _build(
    folder: Path,
    path_of: Mapping[str, str],
    *,
    size: int,
    threads: int,
    progress: Progress | None,
) -> tuple[Path, Path]:
    """Decode every file; the result is the files of what could not be read and of the array."""
    verdicts, array = folder / "verdicts.json", folder / "images.npy"
    images = np.lib.format.open_memmap(array, "w+", np.uint8, (len(path_of), size, size, 3))

    def fill(item: tuple[int, tuple[str, str]]) -> tuple[str, str]:
        i, (digest, path) = item
        try:
            images[i] = decode(path, size)
        except ValueError as error:
            return digest, str(error)
        return digest, ""

    reasons: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for digest, reason in pool.map(fill, enumerate(path_of.items())):
            reasons[digest] = reason
            if progress:
                progress(len(reasons), len(path_of))
    images.flush()
    verdicts.write_text(json.dumps({d: reason for d, reason in reasons.items() if reason}))
    return verdicts, array
