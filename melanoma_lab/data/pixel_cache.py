"""The decode cache: every image is decoded and resized once, for every later run.

A uint8 array on disk, keyed by the content digests and the size, is memory-mapped by every run,
arm, seed and process.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.core.checksummed_files import (
    ArrayFile,
    load_or_compute,
    open_array,
    read_checksummed_json,
    write_array,
    write_checksummed_json,
)
from melanoma_lab.core.checksums import hash_file, hash_text
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.data.decoding import DECODING_VERSION, decode_image

#: Why a file without a digest is unreadable. It is not kept: it says nothing about the content.
NOT_OPENED = "cannot be opened (is it there, is it a file, may you read it?)"


#: Seconds after which a file's times tell whether it has changed: the clocks of disks tick.
SETTLED_SECONDS = 2.0
#: What this process has read: path -> what changes when a file does, and its digest then.
_read: dict[str, tuple[tuple[int, ...], str]] = {}


@dataclass(frozen=True)
class DecodedImages:
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


def compute_file_digests(paths: Sequence[str], threads: int) -> list[str]:
    """SHA-256 of every file's bytes, in hexadecimal; empty where a file cannot be read.

    A process reads a file again where its inode, size, or time of change is another one.
    """
    digests = [_look_up_digest(path) for path in paths]
    unread = [position for position, digest in enumerate(digests) if digest is None]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(_compute_and_store_digest, [paths[position] for position in unread])
        for position, digest in zip(unread, found, strict=True):
            digests[position] = digest
    return [digest or "" for digest in digests]


def _look_up_digest(path: str) -> str | None:
    """The digest of a file that this process has read and that has not changed since."""
    if path not in _read:
        return None
    state, digest = _read[path]
    try:
        return digest if _state(Path(path).stat()) == state else None
    except OSError:
        return None


def compute_file_digest(path: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; empty where it cannot be read. Nothing is kept."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a named pipe waits for ever
            return ""
        return hash_file(path)
    except OSError:
        return ""


def _compute_and_store_digest(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    digest = compute_file_digest(path)
    if digest and time.time() - status.st_ctime > SETTLED_SECONDS:
        _read[path] = (_state(status), digest)
    return digest


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does; its time of change too, which nobody can set back."""
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times)


def load_pixels(
    paths: Sequence[str],
    digests: Sequence[str],
    *,
    size: int,
    resize: Resize = Resize.squash,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> DecodedImages:
    """Memory-map the decoded images, decoding them first where the cache has none that are whole.

    Of several processes that want the same images one decodes them, and the others wait.

    Args:
        paths: n image files.
        digests: n digests of their bytes, as ``compute_file_digests`` gives them.
        size: side in pixels.
        resize: what becomes of an image's proportions.
        cache: the lab's cache folder.
        threads: decoding threads.
        progress: called with (done, total) while decoding.

    Raises:
        RunError: the cache cannot be written.
    """
    path_of = dict(sorted(zip(digests, paths, strict=True)))
    not_opened = {"": NOT_OPENED} if path_of.pop("", None) is not None else {}
    if not path_of:
        return DecodedImages(np.empty((0, size, size, 3), np.uint8), {}, not_opened)
    told = json.dumps([DECODING_VERSION, size, resize, list(path_of)])
    key = hash_text(told, 32)
    folder = cache / "pixels"
    array, verdicts = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(path_of), size, size, 3)

    def load() -> tuple[NDArray[np.uint8], dict[str, str]] | None:
        unreadable = read_checksummed_json(verdicts)
        images = open_array(array, shape)
        return None if images is None or unreadable is None else (images, unreadable)

    def decoded(path: str) -> NDArray[np.uint8]:
        return decode_image(path, size, resize)

    def build() -> None:
        with write_array(array, shape) as file:
            # The array comes last: where it is, the verdicts are.
            write_checksummed_json(verdicts, _decode_all(file, path_of, decoded, threads, progress))

    images, unreadable = load_or_compute(array, load, build)
    row = {digest: i for i, digest in enumerate(path_of) if digest not in unreadable}
    return DecodedImages(images, row, unreadable | not_opened)


def _decode_all(
    file: ArrayFile,
    path_of: Mapping[str, str],
    decoded: Callable[[str], NDArray[np.uint8]],
    threads: int,
    progress: ProgressCallback | None,
) -> dict[str, str]:
    """Decode every file; returns digest -> reason of those that cannot be read."""

    def fill(item: tuple[int, tuple[str, str]]) -> tuple[str, str]:
        i, (digest, path) = item
        try:
            pixels = decoded(path)
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
