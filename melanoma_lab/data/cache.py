"""The cache folder: results that take long to compute, and decoded images.

Every image is decoded and resized once for all runs. All runs and processes memory-map the same
uint8 array on disk. Its key depends on the digests of the files, the size and the way of resizing.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.data import Dataset, OnUnreadable, Resize
from melanoma_lab.core.checksummed_files import (
    ArrayFile,
    load_or_compute,
    open_array,
    read_checksummed_json,
    write_array,
    write_checksummed_json,
)
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_file, hash_text
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.decoding import DECODING_VERSION, decode_image

#: Why a file without a digest is unreadable. Not cached, because it is no property of the content.
NOT_OPENED = "cannot be opened (is it there, is it a file, may you read it?)"
#: Smallest age in seconds of a file's last change at which its digest is remembered: the clocks of
#: file systems are coarse, so a second change soon after might not show in the file's times.
SETTLED_SECONDS = 2.0
#: Largest number of unreadable files that a message names; the audit lists all of them.
N_SHOWN: Final = 10
#: Path of a file that this process has read -> the file's state then, and its digest.
_digests: dict[str, tuple[tuple[int, ...], str]] = {}


def load_or_compute_json(folder: Path, question: object, find: Callable[[], Any]) -> Any:
    """Load a result, values of JSON, from the cache; or compute and store it.

    A result whose file is damaged is computed again. If several processes need the same result, one
    computes it and the others wait. The question is everything that the result depends on.
    """
    key = hash_text(json.dumps(question), 32)
    path = folder / f"{key}.json"
    return load_or_compute(
        path, lambda: read_checksummed_json(path), lambda: write_checksummed_json(path, find())
    )


@dataclass(frozen=True)
class DecodedImages:
    """The decoded images of a dataset.

    Attributes:
        images: uint8, shape (m, size, size, 3), RGB, memory-mapped and read-only; one image for
            each distinct digest.
        row: digest -> index into ``images``, without the digests of unreadable files.
        unreadable: digest -> why its file could not be decoded.
    """

    images: NDArray[np.uint8]
    row: dict[str, int]
    unreadable: dict[str, str]


def compute_file_digests(paths: Sequence[str], threads: int) -> list[str]:
    """Compute the SHA-256 of every file in hexadecimal; empty if a file cannot be read.

    A process reads a file again only if its inode, size or time of change is different.
    """
    known = {path: digest for path in paths if (digest := _look_up_digest(path))}
    unread = [path for path in paths if path not in known]
    with ThreadPoolExecutor(threads) as pool:
        known |= zip(unread, pool.map(_compute_and_store_digest, unread), strict=True)
    return [known[path] for path in paths]


def _look_up_digest(path: str) -> str | None:
    """Return the digest of a file if this process has read it and it has not changed since."""
    if path not in _digests:
        return None
    state, digest = _digests[path]
    try:
        return digest if _file_state(Path(path).stat()) == state else None
    except OSError:
        return None


def compute_file_digest(path: str) -> str:
    """Compute the SHA-256 of a file in hexadecimal, uncached; empty if it cannot be read."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a named pipe would block
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
        _digests[path] = (_file_state(status), digest)
    return digest


def _file_state(status: os.stat_result) -> tuple[int, ...]:
    """Return values that change with a file, including its ctime, which cannot be set back."""
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
    """Memory-map the decoded images of files with these digests, ``size`` pixels wide and high.

    If the cache has no intact copy, they are decoded first. If several processes need the same
    images, one decodes them and the others wait.

    Raises:
        RunError: the cache cannot be written.
    """
    path_of = dict(sorted(zip(digests, paths, strict=True)))
    not_opened = {"": NOT_OPENED} if path_of.pop("", None) is not None else {}
    if not path_of:
        return DecodedImages(np.empty((0, size, size, 3), np.uint8), {}, not_opened)
    contents = json.dumps([DECODING_VERSION, size, resize, list(path_of)])
    key = hash_text(contents, 32)
    folder = cache / "pixels"
    array, reasons = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(path_of), size, size, 3)

    def load() -> tuple[NDArray[np.uint8], dict[str, str]] | None:
        unreadable = read_checksummed_json(reasons)
        images = open_array(array, shape)
        return None if images is None or unreadable is None else (images, unreadable)

    def decode(path: str) -> NDArray[np.uint8]:
        return decode_image(path, size, resize)

    def build() -> None:
        with write_array(array, shape) as file:
            # The array appears last: if it exists, the reasons exist too.
            write_checksummed_json(reasons, _decode_all(file, path_of, decode, threads, progress))

    images, unreadable = load_or_compute(array, load, build)
    row = {digest: i for i, digest in enumerate(path_of) if digest not in unreadable}
    return DecodedImages(images, row, unreadable | not_opened)


def _decode_all(
    file: ArrayFile,
    path_of: Mapping[str, str],
    decode: Callable[[str], NDArray[np.uint8]],
    threads: int,
    progress: ProgressCallback | None,
) -> dict[str, str]:
    """Decode every file; return digest -> reason of the files that cannot be decoded."""

    def fill(item: tuple[int, tuple[str, str]]) -> tuple[str, str]:
        i, (digest, path) = item
        try:
            pixels = decode(path)
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
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # further writes to a full disk would fail too
            raise
    return {digest: reason for digest, reason in reasons.items() if reason}


def drop_unreadable(
    manifest: pd.DataFrame, unreadable: Mapping[str, str], dataset: Dataset
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Refuse or leave out images that could not be decoded, with a note.

    The manifest has the columns path and digest; ``unreadable`` maps digests to reasons.

    Raises:
        UserError: images cannot be read and must not be skipped, or none can be read. The message
            names the first ``N_SHOWN`` files, and the command that lists all.
    """
    reason = manifest["digest"].map(unreadable)
    bad = manifest.loc[reason.notna(), "path"]
    if bad.empty:
        return manifest, ()
    what = f"{len(bad)} of {len(manifest)} images cannot be read"
    shown = [f"  {path}: {why}" for path, why in zip(bad, reason.loc[bad.index], strict=True)][
        :N_SHOWN
    ]
    if len(bad) > N_SHOWN:
        root = f" dataset.root={shlex.quote(dataset.root)}" if dataset.root else ""
        shown.append(
            f"  and {len(bad) - N_SHOWN} more, all listed by: "
            + format_lab_command("audit", f"dataset={dataset.name}{root}")
        )
    listed = "\n".join(shown)
    if dataset.on_unreadable is OnUnreadable.error:
        raise UserError(
            f"{what}:\n{listed}\nRepair or remove them, or set dataset.on_unreadable=skip."
        )
    if len(bad) == len(manifest):
        raise UserError(f"dataset: none of {len(manifest)} images can be read:\n{listed}")
    return manifest.loc[reason.isna()].reset_index(drop=True), (f"{what}; skipped:\n{listed}",)
