"""A network's ``.keras`` file, of which nothing is run, and which is not larger than it looks.

TensorFlow is imported where a file is loaded, not before.
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
#: What the archive of a network holds, and the most bytes of each; others would be unpacked, which
#: no network here needs. The text of one with a thousand layers has a megabyte.
MEMBERS: Final = {CONFIG: 2**24, "metadata.json": 2**20, WEIGHTS: 2**40}
#: Numbers may come to so many times the bytes of their file, and so many more: room for weights
#: that were compressed, or are of half the size of the network's own.
EXPANSION: Final = 8
SLACK: Final = 2**26
#: Groups and arrays of a file of weights, and groups within groups.
MOST_ENTRIES: Final = 100_000
DEPTH: Final = 100
#: Numbers that a layer may make of one image: twice those of 64 channels at 1024 x 1024.
LARGEST_OUTPUT: Final = 2**27


def check_keras_file(path: Path) -> Path:
    """A file that Keras will take for a ``.keras`` archive, which holds no code.

    Raises:
        UserError: it is something else, or is compressed, as Keras's never are.
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
    if why := _swelling(members, path.stat().st_size):
        raise UserError(
            f"{path}: expected a .keras file as Keras 3 saves it, not packed again. Received {why}."
        )
    return path


def _swelling(members: list[zipfile.ZipInfo], n_bytes: int) -> str:
    """What of an archive is larger than it looks; empty where nothing is."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            return f"{member.filename} compressed"
        if member.file_size > MEMBERS[member.filename]:
            return f"{member.filename} of {member.file_size:,} bytes"
    whole = sum(member.file_size for member in members)
    return "the same member twice" if len(members) > len(MEMBERS) or whole > n_bytes else ""


def load_safely(path: Path) -> keras.Model:
    """Load a network by Keras's safe mode, which runs no code from a file.

    Args:
        path: a ``.keras`` file, as ``check_keras_file`` gives it.

    Raises:
        UserError: it cannot be loaded so, is no network, or is one of far more weights than the
            file holds.
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
    """Refuse an archive whose network, or whose weights, are far larger than the file.

    Raises:
        ValueError: they are.
    """
    with zipfile.ZipFile(path) as archive:
        text = archive.read(CONFIG).decode()
        member = archive.getinfo(WEIGHTS)
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # where the lengths of the name and the rest stand
        name, rest = (int.from_bytes(file.read(2), "little") for _ in range(2))
        start = member.header_offset + 30 + name + rest
        check_weights_file(
            io.BufferedReader(_Window(file, start, member.file_size)), member.file_size
        )
    check_json(text)
    # In a thread of its own, which takes what Keras notes of these variables along when it ends.
    with ThreadPoolExecutor(1) as pool:
        n_bytes = pool.submit(_bytes_of_network, json.loads(text)).result()
    if n_bytes > EXPANSION * member.file_size + SLACK:
        raise ValueError(
            f"its network has weights of {n_bytes:,} bytes, and the file has {member.file_size:,}."
        )


def _bytes_of_network(content: Any) -> int:
    """How many bytes the weights of a network take, which are not made.

    Raises:
        ValueError: a layer makes more of an image than memory holds.
    """
    import keras

    with keras.StatelessScope(initialize_variables=False):
        network = keras.saving.deserialize_keras_object(content, safe_mode=True)
    n_weights: int = sum(math.prod(weight.shape) for weight in getattr(network, "variables", ()))
    for layer in _layers(network):
        try:
            shapes = [tensor.shape for tensor in keras.tree.flatten(layer.output)]
        except (AttributeError, ValueError):  # it has several, or none yet
            continue
        for shape in shapes:
            if math.prod(n or 1 for n in shape[1:]) > LARGEST_OUTPUT:
                raise ValueError(f"layer {truncate(layer.name, 50)} makes {shape} of its input.")
    return 4 * n_weights


def _layers(network: Any) -> Iterator[Any]:
    """All layers of a network, those of the networks in it too."""
    for layer in getattr(network, "layers", ()):
        yield layer
        yield from _layers(layer)


def check_weights_file(file: Path | BinaryIO, n_bytes: int) -> None:
    """Refuse a file of weights, HDF5, that would come to far more than it is.

    Args:
        file: its path or content.
        n_bytes: its length.

    Raises:
        ValueError: it would; or it holds something else than numbers, or what lies elsewhere.
        OSError: it is no such file, or damaged.
    """
    import h5py

    with h5py.File(file, "r") as weights:
        whole = entries = 0
        left: list[tuple[h5py.Group, int]] = [(weights, 0)]
        while left:
            group, depth = left.pop()
            for name in group:
                entries += 1
                if entries > MOST_ENTRIES or depth > DEPTH:
                    raise ValueError("more groups and arrays than a network has.")
                linked = not isinstance(group.get(name, getlink=True), h5py.HardLink)
                node = None if linked else group[name]
                if isinstance(node, h5py.Group):
                    left.append((node, depth + 1))
                    continue
                if not isinstance(node, h5py.Dataset) or _is_elsewhere(node):
                    raise ValueError(f"{truncate(name, 50)} holds no numbers of this file.")
                whole += 0 if node.shape is None else math.prod(node.shape) * node.dtype.itemsize
                if whole > EXPANSION * n_bytes + SLACK:
                    raise ValueError(
                        f"its arrays come to {whole:,} bytes and more, and it has {n_bytes:,}."
                    )


def _is_elsewhere(array: Any) -> bool:
    """Whether values of an array of HDF5 do not lie in it: in other files, arrays or heaps."""
    return bool(array.external or array.is_virtual or array.dtype.hasobject)


class _Window(io.RawIOBase):
    """A part of a file, as a file: what lies uncompressed in an archive.

    Args:
        file: the whole.
        start: where the part begins, in bytes.
        length: of the part, in bytes.
    """

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._place)
        content = self._file.read(max(0, min(len(buffer), self._length - self._place)))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
