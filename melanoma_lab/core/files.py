"""The cache folder, files that appear complete, and checksums that detect damaged ones.

Files and folders are written in the same folder under another name and renamed at the end. A reader
therefore finds either the old content or the new, and a killed process leaves no incomplete file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs


def get_cache_folder(chosen: str | None) -> Path:
    """Return the folder that the key ``cache`` names, or the user's cache folder."""
    return Path(chosen or platformdirs.user_cache_dir("melanoma_lab")).expanduser()


@contextmanager
def write_atomically(
    path: Path, *, durable: bool = False, partial: str | None = None
) -> Iterator[Path]:
    """Write a new file in the block; it replaces ``path`` at the end, or is deleted on failure.

    Args:
        path: the file to make or to replace; its folder must exist.
        durable: force the content to the disk before renaming, so that a power cut cannot leave
            zeros in the file.
        partial: name of the new file until it is complete. A fixed name is for files that only one
            process writes: it overwrites what a killed process left. None: a unique name.

    Yields:
        The path of the new file, in the folder of ``path``; the block makes the file.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    scratch = path.with_name(partial or _unique_name(path))
    try:
        yield scratch
        if durable:
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        if error.filename == str(scratch) and error.filename2 is None:
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # it was renamed, or never made
            scratch.unlink()


@contextmanager
def write_folder_atomically(
    folder: Path, *, replace: bool = False, partial: str | None = None
) -> Iterator[Path]:
    """Write a new folder in the block; it gets its name at the end, or is deleted on failure.

    Args:
        folder: the folder to make; its parents are made too.
        replace: replace an older folder of this name. If false, there must be none or an empty one.
        partial: as in ``write_atomically``; what a killed process left is deleted first.

    Yields:
        The path of the new folder, which is empty, in the parent of ``folder``.

    Raises:
        OSError: the folder cannot be written.
    """
    scratch = folder.with_name(partial or _unique_name(folder))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if replace and folder.exists():
            _swap(folder, scratch)
        else:
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace_file(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a file atomically; replace an older one.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text, which is written in UTF-8 with unchanged line ends.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    with write_atomically(path, durable=durable) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def _swap(folder: Path, new: Path) -> None:
    """Replace a folder by another; if that fails, restore the old one."""
    older = folder.with_name(f".{folder.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    folder.rename(older)
    try:
        new.rename(folder)
    except OSError:
        older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _unique_name(path: Path) -> str:
    return f".{path.name}.{uuid.uuid4().hex}.partial"


_BLOCK = 1 << 20


class DamagedFileError(ValueError):
    """The content of a file is not what was written: it was truncated or changed."""


def compute_crc32(source: bytes | memoryview | BinaryIO) -> int:
    """Compute a CRC-32, which detects accidental damage and is faster than a cryptographic digest.

    Args:
        source: the content, or a file that is open for reading; it is read from its current
            position on.
    """
    if isinstance(source, bytes | memoryview):
        return zlib.crc32(source)
    checksum = 0
    while block := source.read(_BLOCK):
        checksum = zlib.crc32(block, checksum)
    return checksum


def write_checksummed_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a line with a text's CRC-32 and then the text; replace an older file atomically.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    replace_file(path, f"{compute_crc32(text.encode()):08x}\n{text}", durable=durable)


def read_checksummed_text(path: Path) -> str | None:
    """Read a file of ``write_checksummed_text``; return None if there is no such file.

    Raises:
        DamagedFileError: the content is not what was written.
        OSError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, _, text = content.partition(b"\n")
    if checksum != f"{compute_crc32(text):08x}".encode():
        raise DamagedFileError(f"{path}: its checksum is wrong")
    return text.decode()


def hash_file(path: Path | str) -> str:
    """Compute the SHA-256 of a file: 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str, length: int = 64) -> str:
    """Compute the SHA-256 of a text in UTF-8, as hexadecimal digits.

    Args:
        length: how many of the 64 hexadecimal digits to return, from the first on.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]
