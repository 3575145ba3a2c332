"""Which images a prediction is asked for: a folder's, one file, or those that a pattern matches."""

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
    """Files to be looked at; never all of them in memory.

    Attributes:
        count: how many there are, at the time of asking.
        walk: gives (image_id, path) of each; the id is the path below the folder that was named,
            with ``/``, or the path as it was typed.
    """

    count: int
    walk: Callable[[], Iterator[tuple[str, str]]]


def find_image_files(typed: str | None) -> ImageFiles:
    """The images that ``images=`` names.

    A name is taken for what is there; only where nothing is it is a pattern, as of a shell: ``*``,
    ``?``, ``[abc]``, and ``**`` for folders at any depth. Links are followed.

    Args:
        typed: as typed.

    Raises:
        UserError: it names nothing, or no images.
    """
    if not typed:
        raise UserError(NO_IMAGES)
    path = Path(typed).expanduser()
    try:
        if path.is_dir():
            return _counted(
                lambda: _in_folder(path),
                f"images={truncate(typed)}: {describe_missing_images(path)}",
            )
        if path.exists() or path.is_symlink():
            return ImageFiles(1, lambda: iter([(path.as_posix(), str(path))]))
    except (OSError, ValueError):  # too long, or with a zero in it: no path
        pass
    if not glob.has_magic(str(path)):
        raise UserError(
            f"images={truncate(typed)}: no such file or "
            f"folder.{suggest_file(path.parent, path.name)}"
        )
    return _counted(
        lambda: _matching(str(path)),
        f"images={truncate(typed)}: no image matches this pattern; expected files ending in "
        f"{', '.join(sorted(IMAGE_SUFFIXES))}.",
    )


def _counted(walk: Callable[[], Iterator[tuple[str, str]]], nothing: str) -> ImageFiles:
    count = sum(1 for _ in walk())
    if count == 0:
        raise UserError(nothing)
    return ImageFiles(count, walk)


def _in_folder(folder: Path) -> Iterator[tuple[str, str]]:
    for path in walk_images(folder, outside_root=True):
        yield path.relative_to(folder).as_posix(), str(path)


def _matching(pattern: str) -> Iterator[tuple[str, str]]:
    """What a pattern matches, sorted: names in memory, as one folder's are."""
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - pathlib's has no [!a]
        path = Path(name)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
            yield path.as_posix(), name
