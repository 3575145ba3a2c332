"""Files of the cache that tell whether they are whole: cut short, flipped, half written.

An array is a plain ``.npy`` file with a tail that NumPy does not read: a CRC-32 of every MiB of it.
Checking takes a tenth of a second for 500 MB in memory (zlib's crc32 in two threads, 4 GB/s;
SHA-256 would take four times as long), is done once a process, and brings the file into memory
for the training that follows. Whoever wants to forge a cache can; disks cannot.
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

from melanoma_lab.core.atomic_files import write_atomically
from melanoma_lab.core.checksums import (
    DamagedFileError,
    compute_crc32,
    read_checksummed_text,
    write_checksummed_text,
)
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.locks import hold_lock

_MAGIC = b"melanoma_lab seal 1\n"
_FOOTER = len(_MAGIC) + 8
_BLOCK = 1 << 20
_CHECKSUMS = "checksums.json"
_logger = logging.getLogger(__name__)
#: Files found whole by this process: path -> what changes when a file does.
_checked: dict[Path, tuple[int, int, int]] = {}
#: Files said to be damaged and not made again yet.
_told: set[Path] = set()


class ArrayFile:
    """A ``.npy`` file of images that several threads fill.

    Pixels are written plainly: on a full disk that raises, where writing to a memory map would end
    the process with a bus error.

    Args:
        path: the file to make.
        shape: (images, height, width, 3).
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
        """Write images, uint8, shape (n, height, width, 3), from number ``first`` on."""
        with self._path.open("r+b") as file:
            file.seek(self._offset + first * self._image_bytes)
            file.write(np.ascontiguousarray(images).data)


@contextmanager
def write_array(path: Path, shape: tuple[int, ...]) -> Iterator[ArrayFile]:
    """Make an array file in the block; it appears whole and sealed, or not at all.

    Two processes may even make the same one at once: each writes a file of its own and renames it.

    Args:
        path: where ``open_array`` finds it.
        shape: (images, height, width, 3).

    Raises:
        RunError: the disk is full or cannot be written.
    """
    with (
        report_cache_errors(path.parent),
        write_atomically(path, durable=True) as partial,
    ):
        yield ArrayFile(partial, shape)
        _append_checksums(partial)
    _told.discard(path)


def open_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Memory-map an array that is whole.

    Args:
        path: what ``write_array`` made, or may have made.
        shape: expected.

    Returns:
        uint8 array of that shape, read only; None where the file is missing, or damaged, which is
        said in the log.
    """
    if not path.exists():
        return None
    array = None
    try:
        if _is_intact(path):  # before NumPy parses a header that may be anything
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        pass
    if array is None or array.shape != shape or array.dtype != np.uint8:
        _warn_damaged(path)
        return None
    return cast("NDArray[np.uint8]", array)


def _checksums(path: Path, n_bytes: int) -> bytes:
    """CRC-32 of every block of the file's first bytes, four bytes each, little endian."""
    content = np.memmap(path, np.uint8, "r", shape=(n_bytes,))
    blocks = range(0, n_bytes, _BLOCK)
    with ThreadPoolExecutor(2) as pool:
        sums = list(pool.map(lambda i: compute_crc32(content[i : i + _BLOCK].data), blocks))
    return np.array(sums, "<u4").tobytes()


def _append_checksums(path: Path) -> None:
    n_bytes = path.stat().st_size
    tail = _checksums(path, n_bytes) + _MAGIC + n_bytes.to_bytes(8, "little")
    with path.open("ab") as file:
        file.write(tail)


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
    """Keep what JSON can write, under a checksum; it appears whole or not at all.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    with report_cache_errors(path.parent):
        write_checksummed_text(path, json.dumps(content, separators=(",", ":")))
    _told.discard(path)


def read_checksummed_json(path: Path) -> Any:
    """What ``write_checksummed_json`` kept; None where there is nothing, or it is damaged."""
    try:
        text = read_checksummed_text(path)
    except (OSError, DamagedFileError):
        _warn_damaged(path)
        return None
    return None if text is None else json.loads(text)


def write_folder_checksums(folder: Path) -> None:
    """Write down what the files of a folder hold, for ``is_folder_intact``."""
    write_checksummed_json(folder / _CHECKSUMS, _checksums_of_files(folder))


def is_folder_intact(folder: Path) -> bool:
    """Whether a folder holds the files that ``write_folder_checksums`` found in it, unchanged."""
    if not folder.is_dir():
        return False
    whole = bool(read_checksummed_json(folder / _CHECKSUMS) == _checksums_of_files(folder))
    if not whole:
        _warn_damaged(folder)
    return whole


def _checksums_of_files(folder: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): _checksum_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _CHECKSUMS
    }


def _checksum_of_file(path: Path) -> int:
    state = path.stat()
    return _checksum_in_state(
        path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    )


@functools.lru_cache(maxsize=100_000)
def _checksum_in_state(path: Path, *_state: int) -> int:
    """CRC-32 of a file, which a process reads again only if its state is another one."""
    with path.open("rb") as file:
        return compute_crc32(file)


def load_or_compute(path: Path, load: Callable[[], Any], make: Callable[[], None]) -> Any:
    """What a cache file holds, made first where it is not there or damaged.

    Of several processes that want the same one makes it, and the others wait.

    Args:
        path: of the file.
        load: opens it; None where it cannot be used.
        make: makes it.

    Raises:
        RunError: the cache cannot be written; or what was just made cannot be read: the disk is
            failing.
    """
    found = load()
    if found is not None:
        return found
    with ExitStack() as stack:
        with report_cache_errors(path.parent):
            # Nobody needs its file afterwards: whoever waits finds what was made.
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
    """Make the folder and write into it in the block; say what to do where that fails.

    Raises:
        RunError: the disk is full, read only or failing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror or error}). Make room there, or choose "
            "another folder for the cache: cache=DIR"
        ) from error


def _warn_damaged(path: Path) -> None:
    if path not in _told:
        _told.add(path)
        _logger.warning("melanoma_lab: %s is damaged; it is made again.", path)
