"""Weights in PyTorch's files, read with NumPy; PyTorch is not needed, and nothing in them is run.

Both formats: the old one (PyTorch before 1.6), pickles followed by the bare numbers, and the one
since, a zip archive without compression. The one pickle that describes the tensors is carried out
by ``melanoma_lab.models.pretrained.safe_unpickler``, which says why that is safe. Every number of a
description is checked against the bytes that are there before it is used.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.models.pretrained.safe_unpickler import (
    TensorDescription,
    TensorStorage,
    UnsafePickleError,
    execute_pickle,
)

#: What the old format begins with, and the version of it that there was.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
#: No network here has weights of more than this.
LARGEST = 2**32
#: PyTorch's own limit is 64; weights have five at most.
MOST_DIMENSIONS = 8


def read_torch_file(path: Path) -> dict[str, NDArray[Any]]:
    """Read what ``torch.save(network.state_dict(), path)`` wrote.

    Args:
        path: the file; either of PyTorch's two formats.

    Returns:
        The tensors by their names, in the file's order, read only.

    Raises:
        UserError: the file cannot be read, is no such file, is damaged, or names anything that
            weights have no need of.
    """
    try:
        return _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnsafePickleError as error:
        raise UserError(
            f"{path}: not a file of PyTorch weights that can be trusted: {truncate(error)}. "
            "Nothing of it was run."
        ) from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if path.stat().st_size > LARGEST:
        raise UnsafePickleError(f"it is larger than {LARGEST // 2**30} GiB")
    content = path.read_bytes()
    zipped = content.startswith(b"PK")
    found, tensor = _read_zip(content) if zipped else _read_plain(content)
    if type(found) is dict and type(found.get("state_dict")) is dict:
        found = found["state_dict"]  # a checkpoint that keeps them beside other things
    descriptions = found.items() if type(found) is dict else ()
    tensors = {name: tensor(it) for name, it in descriptions if type(it) is TensorDescription}
    if not tensors:
        raise UnsafePickleError("it holds no dictionary of tensors")
    return tensors


#: From a tensor's description to its numbers.
_Reader = Callable[[TensorDescription], NDArray[Any]]


def _read_plain(content: bytes) -> tuple[Any, _Reader]:
    """The old format: magic number, version, platform, description, storage keys, storages."""
    file = io.BytesIO(content)
    if execute_pickle(file) != MAGIC or execute_pickle(file) != PROTOCOL:
        raise UnsafePickleError("it does not begin as PyTorch's files do")
    platform = execute_pickle(file)
    if type(platform) is not dict or platform.get("little_endian") is not True:
        raise UnsafePickleError("its numbers are not little endian")
    found, keys = execute_pickle(file), execute_pickle(file)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise UnsafePickleError("its list of storages is none")
    sizes = {it.storage.key: it.storage for it in _tensors(found)}
    places, position = {}, file.tell()
    for key in keys:
        if key not in sizes or key in places:
            raise UnsafePickleError("its storages are not those of its tensors")
        if position + 8 > len(content):
            raise UnsafePickleError("it is cut short or damaged")
        (length,) = struct.unpack_from("<q", content, position)
        storage, position = sizes[key], position + 8
        if length != storage.length:
            raise UnsafePickleError("a storage has another size than its tensors say")
        places[key] = position
        position += length * np.dtype(storage.dtype).itemsize

    def tensor(description: TensorDescription) -> NDArray[Any]:
        if description.storage.key not in places:
            raise UnsafePickleError("its storages are not those of its tensors")
        return _view(description, content, places[description.storage.key])

    return found, tensor


def _read_zip(content: bytes) -> tuple[Any, _Reader]:
    """The format since PyTorch 1.6: ``NAME/data.pkl`` and ``NAME/data/KEY``, not compressed."""
    with _zip_errors():
        archive = zipfile.ZipFile(io.BytesIO(content))
    members = {member.filename: member for member in archive.infolist()}

    def read(name: str) -> bytes:
        with _zip_errors():
            return archive.read(members[name])

    if sum(member.file_size for member in members.values()) > len(content):
        raise UnsafePickleError("its members lie over each other")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise UnsafePickleError("it is compressed, as PyTorch's never are")
    descriptions = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(descriptions) != 1:
        raise UnsafePickleError("it holds no NAME/data.pkl")
    folder = descriptions[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in members and read(order) != b"little":
        raise UnsafePickleError("its numbers are not little endian")
    found = execute_pickle(io.BytesIO(read(descriptions[0])))
    storages: dict[str, bytes] = {}

    def tensor(description: TensorDescription) -> NDArray[Any]:
        key = description.storage.key
        if f"{folder}data/{key}" not in members:
            raise UnsafePickleError("its storages are not those of its tensors")
        if key not in storages:
            storages[key] = read(f"{folder}data/{key}")
        return _view(description, storages[key], 0)

    return found, tensor


@contextmanager
def _zip_errors() -> Iterator[None]:
    """Whatever ``zipfile`` raises where an archive is not what it says."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        RuntimeError,  # encrypted, or compressed in a way that it does not know
        ValueError,
        struct.error,
    ) as error:
        raise UnsafePickleError("it is cut short or damaged") from error


def _tensors(found: Any) -> list[TensorDescription]:
    """The descriptions in a dictionary, or in one that it holds."""
    if type(found) is not dict:
        raise UnsafePickleError("it holds no dictionary of tensors")
    inner: Mapping[str, Any] = found.get("state_dict", {})
    values = [*found.values(), *(inner.values() if type(inner) is dict else ())]
    return [value for value in values if type(value) is TensorDescription]


def _view(tensor: TensorDescription, content: bytes, place: int) -> NDArray[Any]:
    """A tensor's numbers, where they lie within its storage, without copying.

    Args:
        tensor: whose numbers are checked here.
        content: bytes that hold the storage.
        place: where in them it begins.
    """
    storage: TensorStorage = tensor.storage
    dtype = np.dtype(storage.dtype)
    if not 0 <= storage.length <= (len(content) - place) // dtype.itemsize:
        raise UnsafePickleError("a storage reaches beyond the file")
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((tensor.offset, *shape, *strides), default=0) < 0:
        raise UnsafePickleError("a tensor has a shape that there is not")
    n = math.prod(shape)
    last = tensor.offset + sum((a - 1) * b for a, b in zip(shape, strides, strict=True))
    # One of more elements than its storage would repeat them, without end where a stride is 0.
    if (
        max((n, *shape)) > storage.length
        or (n and last >= storage.length)
        or len(shape) > MOST_DIMENSIONS
    ):
        raise UnsafePickleError("a tensor reaches beyond its storage")
    if not n:
        return np.empty(shape, dtype)
    numbers = np.frombuffer(content, dtype, storage.length, place)
    # How far apart the elements of an axis of length 1 are says nothing, and may be any number.
    apart = [b * dtype.itemsize if a > 1 else 0 for a, b in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, apart, writeable=False)
