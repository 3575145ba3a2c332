"""Find the images of ``images=``: a folder, a single file, or the matches of a pattern."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_lab.config.required_keys import NO_IMAGES
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.image_files import (
    IMAGE_SUFFIXES,
    describe_missing_images,
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

    Args:
        typed: the value of ``images``.

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
