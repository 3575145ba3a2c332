"""Cache files with checksums, so that truncated or corrupted files are detected.

An array is a plain ``.npy`` file with a tail that NumPy does not read: a CRC-32 of every MiB of it.
A process checks a file once. That takes 0.1 seconds for 500 MB in memory (zlib's crc32 in two
threads, 4 GB/s; SHA-256 would take four times as long) and loads the file into memory for the
training that follows. The checksums protect against failing disks, not against forgery.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import RunError
from melanoma_lab.core.files import (
    DamagedFileError,
    compute_crc32,
    read_checksummed_text,
    write_atomically,
    write_checksummed_text,
)
from melanoma_lab.core.locks import hold_lock

_MAGIC = b"melanoma_lab seal 1\n"
_FOOTER = len(_MAGIC) + 8
_BLOCK = 1 << 20
_CHECKSUMS = "checksums.json"
_logger = logging.getLogger(__name__)
#: File that this process found intact -> its inode, size in bytes and modification time (ns).
_checked: dict[Path, tuple[int, int, int]] = {}
#: Damaged files that a warning has named and that have not been recreated yet.
_warned: set[Path] = set()


class ArrayFile:
    """A ``.npy`` file of images that several threads fill.

    Pixels are written with ``file.write``, which raises an error if the disk is full; writing to a
    memory map would kill the process with a bus error.

    Args:
        shape: shape of the array: (images, height, width, 3).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self._image_bytes = int(np.prod(shape[1:]))
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            self._offset = file.tell()
            file.truncate(self._offset + shape[0] * self._image_bytes)

    def write(self, first: int, images: NDArray[np.uint8]) -> None:
        """Write images, uint8, shape (n, height, width, 3), from index ``first`` on."""
        with self._path.open("r+b") as file:
            file.seek(self._offset + first * self._image_bytes)
            file.write(np.ascontiguousarray(images).data)


@contextmanager
def write_array(path: Path, shape: tuple[int, ...]) -> Iterator[ArrayFile]:
    """Make an array file in the block; it appears complete and with checksums, or not at all.

    Two processes may make the same file at the same time: each writes its own and renames it.

    Args:
        shape: shape of the array: (images, height, width, 3).

    Raises:
        RunError: the disk is full or cannot be written.
    """
    with (
        report_cache_errors(path.parent),
        write_atomically(path, durable=True) as partial,
    ):
        yield ArrayFile(partial, shape)
        n_bytes = partial.stat().st_size
        tail = _checksums(partial, n_bytes) + _MAGIC + n_bytes.to_bytes(8, "little")
        with partial.open("ab") as file:
            file.write(tail)
    _warned.discard(path)


def open_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Memory-map an array file if it is intact.

    Returns:
        uint8 array of that shape, read-only; None if the file is missing or damaged. A warning is
        logged for a damaged file.
    """
    if not path.exists():
        return None
    array = None
    try:
        if _is_intact(path):  # first, because NumPy would parse a damaged header
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        pass
    if array is None or array.shape != shape or array.dtype != np.uint8:
        _warn_damaged(path)
        return None
    return cast("NDArray[np.uint8]", array)


def _checksums(path: Path, n_bytes: int) -> bytes:
    """Compute a CRC-32, 4 bytes in little endian, of each block of the file's first bytes."""
    content = np.memmap(path, np.uint8, "r", shape=(n_bytes,))
    blocks = range(0, n_bytes, _BLOCK)
    with ThreadPoolExecutor(2) as pool:
        sums = list(pool.map(lambda i: compute_crc32(content[i : i + _BLOCK].data), blocks))
    return np.array(sums, "<u4").tobytes()


def _is_intact(path: Path) -> bool:
    status = path.stat()
    state = (status.st_ino, status.st_size, status.st_mtime_ns)
    if _checked.get(path) == state:
        return True
    with path.open("rb") as file:
        file.seek(-min(_FOOTER, status.st_size), os.SEEK_END)
        footer = file.read()
        n_bytes = int.from_bytes(footer[-8:], "little")
        if not footer.startswith(_MAGIC) or n_bytes > status.st_size - _FOOTER:
            return False
        file.seek(n_bytes)
        if file.read(status.st_size - _FOOTER - n_bytes) != _checksums(path, n_bytes):
            return False
    _checked[path] = state
    return True


def write_checksummed_json(path: Path, content: Any) -> None:
    """Write JSON to a file with a checksum, atomically.

    Args:
        path: the file; its folder is made if it is missing.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    with report_cache_errors(path.parent):
        write_checksummed_text(path, json.dumps(content, separators=(",", ":")))
    _warned.discard(path)


def read_checksummed_json(path: Path) -> Any:
    """Read a file of ``write_checksummed_json``; return None if it is missing or damaged."""
    try:
        text = read_checksummed_text(path)
    except (OSError, DamagedFileError):
        _warn_damaged(path)
        return None
    return None if text is None else json.loads(text)


def write_folder_checksums(folder: Path) -> None:
    """Write the checksums of a folder's files into the folder, for ``is_folder_intact``."""
    write_checksummed_json(folder / _CHECKSUMS, _file_checksums(folder))


def is_folder_intact(folder: Path) -> bool:
    """Return whether a folder's files are those of ``write_folder_checksums``, unchanged."""
    if not folder.is_dir():
        return False
    intact = bool(read_checksummed_json(folder / _CHECKSUMS) == _file_checksums(folder))
    if not intact:
        _warn_damaged(folder)
    return intact


def _file_checksums(folder: Path) -> dict[str, int]:
    """Map the relative path of every file below a folder to its CRC-32."""
    return {
        path.relative_to(folder).as_posix(): _file_checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _CHECKSUMS
    }


def _file_checksum(path: Path) -> int:
    state = path.stat()
    return _cached_checksum(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.lru_cache(maxsize=100_000)
def _cached_checksum(path: Path, *_state: int) -> int:
    """Compute the CRC-32 of a file; a process reads the file again only if its state changed."""
    with path.open("rb") as file:
        return compute_crc32(file)


def load_or_compute(path: Path, load: Callable[[], Any], make: Callable[[], None]) -> Any:
    """Load a cache file; compute and write it first if it is missing or damaged.

    If several processes need the same file, one makes it and the others wait.

    Args:
        load: returns the content of the file, or None if it is missing or damaged.

    Raises:
        RunError: the cache cannot be written, or a file just written cannot be read because the
            disk is failing.
    """
    found = load()
    if found is not None:
        return found
    with ExitStack() as stack:
        with report_cache_errors(path.parent):
            # The lock's file may be removed: a process that waited for it loads what was made.
            stack.enter_context(hold_lock(path.with_suffix(".lock"), remove=True))
        found = load()
        if found is None:
            make()
            found = load()
    if found is None:
        raise RunError(
            f"{path}: just written and already damaged. Choose a folder on another disk: cache=DIR"
        )
    return found


@contextmanager
def report_cache_errors(folder: Path) -> Iterator[None]:
    """Make a cache folder; turn errors of writing to it in the block into a helpful RunError.

    Raises:
        RunError: the disk is full, read-only or failing; the message says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror or error}). Free some space there, or "
            "choose another folder for the cache: cache=DIR"
        ) from error


def _warn_damaged(path: Path) -> None:
    if path not in _warned:
        _warned.add(path)
        _logger.warning("melanoma_lab: %s is damaged; it is recreated.", path)
