"""Files as pixels, decoded as for training by several threads, a bounded number ahead."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.core.errors import explain_os_error
from melanoma_lab.data.decoding import decode_image
from melanoma_lab.data.image_files import is_utf8
from melanoma_lab.data.pixel_cache import NOT_OPENED, compute_file_digest


@dataclass(frozen=True)
class ImageBatch:
    """Images that are looked at together, and files that cannot be.

    Attributes:
        image_ids: n ids.
        pixels: uint8, shape (n, size, size, 3), RGB; n may be 0 in the last one.
        unreadable: (image_id, reason) of the files met on the way to these images.
        digests: n, of the files' bytes, as ``compute_file_digest`` gives them; none unless asked
            for.
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
    """Decode files in their order.

    Args:
        images: (image_id, path), taken as they are needed.
        size: side in pixels.
        resize: what becomes of an image's proportions.
        batch_size: images a batch; the last one may be smaller.
        threads: decoding threads.
        with_digests: say what the files' bytes are, too.

    Yields:
        Batches; every image is in one of them, as pixels or with the reason why not.
    """
    # What is decoded ahead: enough for the threads to be busy while a batch is looked at.
    ahead = 2 * batch_size + threads
    waiting: deque[tuple[str, Future[tuple[NDArray[np.uint8] | str, str]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")
    remaining = iter(images)
    ids: list[str] = []
    digests: list[str] = []
    unreadable: list[tuple[str, str]] = []
    pixels = np.empty((batch_size, size, size, 3), np.uint8)

    def batch() -> ImageBatch:
        made = ImageBatch(tuple(ids), pixels[: len(ids)], tuple(unreadable), tuple(digests))
        ids.clear()
        digests.clear()
        unreadable.clear()
        return made

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
                unreadable.append((_shown(image_id), found))
                continue
            pixels[len(ids)] = found
            ids.append(image_id)
            if with_digests:
                digests.append(digest)
            if len(ids) == batch_size:
                yield batch()
                pixels = np.empty_like(pixels)  # whoever has the last one may keep it
        if ids or unreadable:
            yield batch()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def decode_or_explain(path: str, size: int, resize: Resize) -> NDArray[np.uint8] | str:
    """The pixels of a file, or why it has none.

    Args:
        path: of whatever is there.
        size: side in pixels.
        resize: what becomes of an image's proportions.

    Returns:
        uint8, shape (size, size, 3), RGB; or the reason in a few words.
    """
    if not is_utf8(path):
        return "its name is not UTF-8; rename the file or its folder"
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a named pipe would keep us for ever
            return NOT_OPENED
        return decode_image(path, size, resize)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return NOT_OPENED if error.errno is None else explain_os_error(error)


def _shown(image_id: str) -> str:
    """An id that can be written, whatever bytes the file's name has."""
    return image_id.encode(errors="backslashreplace").decode()
