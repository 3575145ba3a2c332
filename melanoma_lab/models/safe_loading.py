"""Load a network's ``.keras`` file without running code from it or exhausting memory.

TensorFlow is imported only when a file is loaded.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.untrusted_files import check_json

if TYPE_CHECKING:
    import keras

WEIGHTS: Final = "model.weights.h5"
CONFIG: Final = "config.json"
#: Allowed members of the archive, and the largest size of each in bytes. Keras would unpack other
#: members, which no network here needs. The configuration of a thousand layers has a megabyte.
MEMBERS: Final = {CONFIG: 2**24, "metadata.json": 2**20, WEIGHTS: 2**40}
#: Weights may take up to ``EXPANSION`` times the bytes of their file plus ``SLACK``: files may be
#: compressed, or hold weights in half the network's precision.
EXPANSION: Final = 8
SLACK: Final = 2**26
#: Largest number of groups and arrays in a file of weights, and largest depth of nested groups.
MOST_ENTRIES: Final = 100_000
DEPTH: Final = 100
#: Largest number of values of a layer's output for one image: twice 64 channels at 1024 x 1024.
LARGEST_OUTPUT: Final = 2**27


def check_keras_file(path: Path) -> Path:
    """Refuse a file that is not an uncompressed ``.keras`` archive with the allowed members.

    Returns:
        The same path.

    Raises:
        UserError: the file does not exist, is something else, or is compressed, which Keras's files
            never are.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        others = ["no archive"]
        members = []
    else:
        others = sorted({member.filename for member in members} - MEMBERS.keys())
    if path.suffix != ".keras" or others:
        found = f" Received {truncate(', '.join(others))}." if others else ""
        raise UserError(f"{path}: expected a .keras file, as Keras 3 saves a network.{found}")
    if why := _describe_excess(members, path.stat().st_size):
        raise UserError(
            f"{path}: expected a .keras file as Keras 3 saves it, not packed again. Received {why}."
        )
    return path


def _describe_excess(members: list[zipfile.ZipInfo], n_bytes: int) -> str:
    """Describe a member that needs more memory than the archive's size shows; empty if none."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            return f"{member.filename} compressed"
        if member.file_size > MEMBERS[member.filename]:
            return f"{member.filename} of {member.file_size:,} bytes"
    total = sum(member.file_size for member in members)
    return "the same member twice" if len(members) > len(MEMBERS) or total > n_bytes else ""


def load_safely(path: Path) -> keras.Model:
    """Load a network in Keras's safe mode, which runs no code from the file.

    Args:
        path: ``.keras`` file that ``check_keras_file`` has accepted.

    Raises:
        UserError: the file cannot be loaded in safe mode, holds no network, or its network has far
            more weights than the file.
    """
    import keras

    try:
        _check_sizes(path)
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file makes Keras and HDF5 raise anything
        why = truncate(get_first_line(error), 300)
        raise UserError(f"{path}: Keras does not load this in its safe mode: {why}") from error
    if not isinstance(network, keras.Model) or not hasattr(network, "inputs"):
        raise UserError(f"{path}: expected a network from images to classes.")
    return network


def _check_sizes(path: Path) -> None:
    """Raise ValueError if the network or its weights would be far larger than the file."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read(CONFIG).decode()
        member = archive.getinfo(WEIGHTS)
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # lengths of the name and the extra field
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        start = member.header_offset + 30 + name + extra
        check_weights_file(
            io.BufferedReader(_Window(file, start, member.file_size)), member.file_size
        )
    check_json(text)
    # Keras keeps thread-local data of these variables, which are freed when this thread ends.
    with ThreadPoolExecutor(1) as pool:
        n_bytes = pool.submit(_count_weight_bytes, json.loads(text)).result()
    if n_bytes > EXPANSION * member.file_size + SLACK:
        raise ValueError(
            f"its network has weights of {n_bytes:,} bytes, and the file has {member.file_size:,}."
        )


def _count_weight_bytes(content: Any) -> int:
    """Count the bytes of a network's weights in float32, without creating them."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        network = keras.saving.deserialize_keras_object(content, safe_mode=True)
    n_weights: int = sum(math.prod(weight.shape) for weight in getattr(network, "variables", ()))
    for layer in _layers(network):
        try:
            shapes = [tensor.shape for tensor in keras.tree.flatten(layer.output)]
        except (AttributeError, ValueError):  # it has several outputs, or was not called yet
            continue
        for shape in shapes:
            if math.prod(n or 1 for n in shape[1:]) > LARGEST_OUTPUT:
                raise ValueError(f"layer {truncate(layer.name, 50)} makes {shape} of its input.")
    return 4 * n_weights


def _layers(network: Any) -> Iterator[Any]:
    """Yield all layers of a network, including nested networks and their layers."""
    for layer in getattr(network, "layers", ()):
        yield layer
        yield from _layers(layer)


def check_weights_file(file: Path | BinaryIO, n_bytes: int) -> None:
    """Refuse an HDF5 file of weights whose arrays would be far larger than the file.

    Raises:
        ValueError: the arrays would be far larger, are not numbers, or are stored outside the file.
        OSError: the file is not HDF5, or is damaged.
    """
    import h5py

    with h5py.File(file, "r") as weights:
        total = entries = 0
        remaining: list[tuple[h5py.Group, int]] = [(weights, 0)]
        while remaining:
            group, depth = remaining.pop()
            for name in group:
                entries += 1
                if entries > MOST_ENTRIES or depth > DEPTH:
                    raise ValueError("more groups and arrays than a network has.")
                linked = not isinstance(group.get(name, getlink=True), h5py.HardLink)
                node = None if linked else group[name]
                if isinstance(node, h5py.Group):
                    remaining.append((node, depth + 1))
                    continue
                # Values may be stored in other files, arrays or heaps.
                if (
                    not isinstance(node, h5py.Dataset)
                    or node.external
                    or node.is_virtual
                    or node.dtype.hasobject
                ):
                    raise ValueError(f"{truncate(name, 50)} holds no numbers of this file.")
                total += 0 if node.shape is None else math.prod(node.shape) * node.dtype.itemsize
                if total > EXPANSION * n_bytes + SLACK:
                    raise ValueError(
                        f"its arrays come to {total:,} bytes and more, and it has {n_bytes:,}."
                    )


class _Window(io.RawIOBase):
    """A part of a file as a file, such as an uncompressed member of an archive."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._position = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._position)
        content = self._file.read(max(0, min(len(buffer), self._length - self._position)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
