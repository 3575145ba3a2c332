"""Read PyTorch's weights files with NumPy, without PyTorch and without running code from them.

There are two formats: pickles followed by raw numbers (PyTorch before 1.6), and an uncompressed zip
archive (since then). ``melanoma_lab.models.safe_unpickler`` executes the pickle that
describes the tensors and explains why that is safe. Every number of a description is checked
against the available bytes before it is used.
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
from melanoma_lab.models.safe_unpickler import (
    TensorDescription,
    TensorStorage,
    UnsafePickleError,
    execute_pickle,
)

#: First number of the old format, and its only version.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
#: Largest size of a file in bytes; no supported network has more.
LARGEST = 2**32
#: Largest number of a tensor's dimensions. PyTorch allows 64; weights have at most five.
MOST_DIMENSIONS = 8


def read_torch_file(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file written by ``torch.save(network.state_dict(), path)``.

    Returns:
        The tensors by name, in the file's order, as read-only arrays.

    Raises:
        UserError: the file cannot be read, has another format, is damaged, or uses names or
            instructions that weights do not need.
    """
    try:
        return _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnsafePickleError as error:
        raise UserError(
            f"{path}: cannot be trusted as a file of PyTorch weights: {truncate(error)}. No code "
            "of it was run."
        ) from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if path.stat().st_size > LARGEST:
        raise UnsafePickleError(f"it is larger than {LARGEST // 2**30} GiB")
    content = path.read_bytes()
    zipped = content.startswith(b"PK")
    found, tensor = _read_zip(content) if zipped else _read_plain(content)
    if type(found) is dict and type(found.get("state_dict")) is dict:
        found = found["state_dict"]  # a checkpoint that contains more than weights
    descriptions = found.items() if type(found) is dict else ()
    tensors = {name: tensor(it) for name, it in descriptions if type(it) is TensorDescription}
    if not tensors:
        raise UnsafePickleError("it holds no dictionary of tensors")
    return tensors


#: Function from a tensor's description to its values.
_Reader = Callable[[TensorDescription], NDArray[Any]]


def _read_plain(content: bytes) -> tuple[Any, _Reader]:
    """Read the old format: magic number, version, platform, description, storage keys, storages."""
    file = io.BytesIO(content)
    if execute_pickle(file) != MAGIC or execute_pickle(file) != PROTOCOL:
        raise UnsafePickleError("it does not begin like a file of PyTorch")
    platform = execute_pickle(file)
    if type(platform) is not dict or platform.get("little_endian") is not True:
        raise UnsafePickleError("its numbers are not little endian")
    found, keys = execute_pickle(file), execute_pickle(file)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise UnsafePickleError("its storage keys are not a list of strings")
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
            raise UnsafePickleError("the size of a storage differs from what its tensors declare")
        places[key] = position
        position += length * np.dtype(storage.dtype).itemsize

    def tensor(description: TensorDescription) -> NDArray[Any]:
        if description.storage.key not in places:
            raise UnsafePickleError("its storages are not those of its tensors")
        return _view(description, content, places[description.storage.key])

    return found, tensor


def _read_zip(content: bytes) -> tuple[Any, _Reader]:
    """Read the format since PyTorch 1.6: ``NAME/data.pkl`` and ``NAME/data/KEY``, uncompressed."""
    with _zip_errors():
        archive = zipfile.ZipFile(io.BytesIO(content))
    members = {member.filename: member for member in archive.infolist()}

    def read(name: str) -> bytes:
        with _zip_errors():
            return archive.read(members[name])

    if sum(member.file_size for member in members.values()) > len(content):
        raise UnsafePickleError("the members of its archive overlap")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise UnsafePickleError("it is compressed, which PyTorch's files never are")
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
    """Translate all exceptions of ``zipfile`` about damaged archives to UnsafePickleError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        RuntimeError,  # encrypted, or compressed by an unknown method
        ValueError,
        struct.error,
    ) as error:
        raise UnsafePickleError("it is cut short or damaged") from error


def _tensors(found: Any) -> list[TensorDescription]:
    """Return all tensor descriptions of a dictionary and of its ``state_dict``."""
    if type(found) is not dict:
        raise UnsafePickleError("it holds no dictionary of tensors")
    inner: Mapping[str, Any] = found.get("state_dict", {})
    values = [*found.values(), *(inner.values() if type(inner) is dict else ())]
    return [value for value in values if type(value) is TensorDescription]


def _view(tensor: TensorDescription, content: bytes, place: int) -> NDArray[Any]:
    """Return a tensor as a view of its storage, which begins at a place of the content."""
    storage: TensorStorage = tensor.storage
    dtype = np.dtype(storage.dtype)
    if not 0 <= storage.length <= (len(content) - place) // dtype.itemsize:
        raise UnsafePickleError("a storage reaches beyond the file")
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((tensor.offset, *shape, *strides), default=0) < 0:
        raise UnsafePickleError("a tensor has an invalid shape")
    n = math.prod(shape)
    last = tensor.offset + sum((a - 1) * b for a, b in zip(shape, strides, strict=True))
    # A tensor larger than its storage would repeat elements, without limit if a stride is 0.
    if (
        max((n, *shape)) > storage.length
        or (n and last >= storage.length)
        or len(shape) > MOST_DIMENSIONS
    ):
        raise UnsafePickleError("a tensor reaches beyond its storage")
    if not n:
        return np.empty(shape, dtype)
    numbers = np.frombuffer(content, dtype, storage.length, place)
    # The stride of an axis of length 1 has no meaning and may be any number.
    byte_strides = [b * dtype.itemsize if a > 1 else 0 for a, b in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], shape, byte_strides, writeable=False
    )
