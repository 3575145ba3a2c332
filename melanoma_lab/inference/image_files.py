"""Find the images of ``images=`` and decode them.

They are a folder, a single file, or the matches of a pattern. They are decoded in batches, as for
training, with several threads and bounded read-ahead.
"""

from __future__ import annotations

import glob
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.compatibility import NO_IMAGES
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.errors import UserError, explain_os_error
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.cache import NOT_OPENED, compute_file_digest
from melanoma_lab.data.decoding import decode_image
from melanoma_lab.data.image_files import (
    IMAGE_SUFFIXES,
    describe_missing_images,
    is_utf8,
    suggest_file,
    walk_images,
)


@dataclass(frozen=True)
class ImageFiles:
    """Image files, listed on demand so that even very many need no memory.

    Attributes:
        count: the number of files when they were counted.
        walk: a function that iterates over (image_id, path); the id is the path relative to the
            folder, with ``/`` as separator, or the path itself for a single file or a pattern.
    """

    count: int
    walk: Callable[[], Iterator[tuple[str, str]]]


def find_image_files(typed: str | None) -> ImageFiles:
    """Find the images that ``images=`` names.

    If no file or folder has this name, it is a pattern as in a shell: ``*``, ``?``, ``[abc]``, and
    ``**`` for folders at any depth. Symbolic links are followed.

    Raises:
        UserError: there is no such file or folder, or it contains no images.
    """
    if not typed:
        raise UserError(NO_IMAGES)
    path = Path(typed).expanduser()
    try:
        if path.is_dir():
            return _count(
                lambda: _walk_folder(path),
                f"images={truncate(typed)}: {describe_missing_images(path)}",
            )
        if path.exists() or path.is_symlink():
            return ImageFiles(1, lambda: iter([(path.as_posix(), str(path))]))
    except (OSError, ValueError):  # no valid path: too long, or contains a zero byte
        pass
    if not glob.has_magic(str(path)):
        raise UserError(
            f"images={truncate(typed)}: no such file or "
            f"folder.{suggest_file(path.parent, path.name)}"
        )
    return _count(
        lambda: _walk_matches(str(path)),
        f"images={truncate(typed)}: no image matches this pattern; expected files ending in "
        f"{', '.join(sorted(IMAGE_SUFFIXES))}.",
    )


def _count(walk: Callable[[], Iterator[tuple[str, str]]], none_found: str) -> ImageFiles:
    count = sum(1 for _ in walk())
    if count == 0:
        raise UserError(none_found)
    return ImageFiles(count, walk)


def _walk_folder(folder: Path) -> Iterator[tuple[str, str]]:
    for path in walk_images(folder, outside_root=True):
        yield path.relative_to(folder).as_posix(), str(path)


def _walk_matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield the images that match a pattern, sorted; all names are held in memory."""
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - pathlib's has no [!a]
        path = Path(name)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
            yield path.as_posix(), name


@dataclass(frozen=True)
class ImageBatch:
    """A batch of n images, and the unreadable files between them.

    Attributes:
        image_ids: the n ids.
        pixels: the images; uint8, shape (n, size, size, 3), RGB. In the last batch n may be 0.
        unreadable: (image_id, reason) of the files before or between these images.
        digests: the n digests of the files from ``compute_file_digest``; empty if not requested.
    """

    image_ids: tuple[str, ...]
    pixels: NDArray[np.uint8]
    unreadable: tuple[tuple[str, str], ...]
    digests: tuple[str, ...] = ()


def decode_batches(
    images: Iterable[tuple[str, str]],
    *,
    size: int,
    resize: Resize,
    batch_size: int,
    threads: int,
    with_digests: bool = False,
) -> Iterator[ImageBatch]:
    """Decode files, given as (image_id, path), in their order.

    The iterable is consumed as needed. ``size`` is the height and width in pixels.

    Yields:
        Batches; every file is in one of them, as pixels or as unreadable with a reason. The last
        may have fewer images than ``batch_size``.
    """
    # Enough images ahead that the threads stay busy while the caller processes a batch.
    ahead = 2 * batch_size + threads
    waiting: deque[tuple[str, Future[tuple[NDArray[np.uint8] | str, str]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")
    remaining = iter(images)
    ids: list[str] = []
    digests: list[str] = []
    unreadable: list[tuple[str, str]] = []
    pixels = np.empty((batch_size, size, size, 3), np.uint8)

    def take_batch() -> ImageBatch:
        return ImageBatch(tuple(ids), pixels[: len(ids)], tuple(unreadable), tuple(digests))

    def read(path: str) -> tuple[NDArray[np.uint8] | str, str]:
        found = decode_or_explain(path, size, resize)
        wanted = with_digests and not isinstance(found, str)
        return found, compute_file_digest(path) if wanted else ""

    try:
        while True:
            while len(waiting) < ahead and (item := next(remaining, None)) is not None:
                image_id, path = item
                waiting.append((image_id, pool.submit(read, path)))
            if not waiting:
                break
            image_id, future = waiting.popleft()
            found, digest = future.result()
            if isinstance(found, str):
                # Bytes of a name that are not UTF-8 are escaped, so that it can be written.
                shown_id = image_id.encode(errors="backslashreplace").decode()
                unreadable.append((shown_id, found))
                continue
            pixels[len(ids)] = found
            ids.append(image_id)
            if with_digests:
                digests.append(digest)
            if len(ids) == batch_size:
                yield take_batch()
                ids, digests, unreadable = [], [], []
                pixels = np.empty_like(pixels)  # the caller may keep the last batch
        if ids or unreadable:
            yield take_batch()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def decode_or_explain(path: str, size: int, resize: Resize) -> NDArray[np.uint8] | str:
    """Decode a file, which need not exist or be an image, or return why it cannot be decoded.

    Returns:
        The image, uint8, shape (size, size, 3), RGB; or a short reason.
    """
    if not is_utf8(path):
        return "its name is not UTF-8; rename the file or its folder"
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a named pipe may block forever
            return NOT_OPENED
        return decode_image(path, size, resize)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return NOT_OPENED if error.errno is None else explain_os_error(error)
