"""Checksums that detect damaged files, and digests that identify content."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

from melanoma_lab.core.atomic_files import replace_file

_BLOCK = 1 << 20


class DamagedFileError(ValueError):
    """The content of a file is not what was written: it was truncated or changed."""


def compute_crc32(source: bytes | memoryview | BinaryIO) -> int:
    """Compute a CRC-32, which detects accidental damage and is faster than a cryptographic digest.

    Args:
        source: the content, or a file that is open for reading; it is read from its current
            position on.

    Returns:
        The checksum, a number of 32 bits.
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
        text: text to write in UTF-8.
        durable: force the content to the disk before the file gets its name.

    Raises:
        OSError: the file cannot be written.
    """
    replace_file(path, f"{compute_crc32(text.encode()):08x}\n{text}", durable=durable)


def read_checksummed_text(path: Path) -> str | None:
    """Read a file of ``write_checksummed_text``.

    Args:
        path: the file.

    Returns:
        The text; None if there is no such file.

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
    """Compute the SHA-256 of a file.

    Args:
        path: a file of any length.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str, length: int = 64) -> str:
    """Compute the SHA-256 of a text in UTF-8.

    Args:
        text: a text of any length.
        length: how many of the 64 hexadecimal digits to return, from the first on.

    Returns:
        The first ``length`` digits.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]
