"""Read a tree of class folders, and refuse an archive's folders that only look like classes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from melanoma_lab.data.archive import reader_that_fits
from melanoma_lab.data.csv_reader import PUBLISHED
from melanoma_lab.data.exclusion import leave_out
from melanoma_lab.data.files import find_images
from melanoma_lab.data.listing import Listing, as_listed
from melanoma_lab.errors import UserError, some

#: Classes that a line to type lists at most.
MOST_LISTED: Final = 20
#: Words that, with a number, name a part of an archive: imgs_part_1, batch-2, fold3.
_PARTS: Final = frozenset(
    {"archive", "batch", "chunk", "disc", "disk", "folder", "fold", "image", "images", "img"}
    | {"imgs", "part", "parts", "set", "shard", "split", "subset", "vol", "volume", "zip"}
)
#: Words that name a folder of images whatever they show: images, train_data, jpeg.
_HOLDERS: Final = frozenset(
    {"all", "data", "dataset", "files", "image", "images", "img", "imgs", "input", "inputs"}
    | {"jpeg", "jpegs", "jpg", "photo", "photos", "picture", "pictures", "png", "raw", "set"}
    | PUBLISHED.keys()
)


def read_tree(
    root: Path,
    *,
    outside_root: bool = False,
    exclude: Sequence[str] = (),
    classes: Collection[str] = (),
) -> Listing:
    """List the images of a tree of class folders: ``<class>/<image>``, ``Train/<class>/<image>``.

    Args:
        root: the folder.
        outside_root: follow links that lead out of it.
        exclude: ``dataset.exclude``.
        classes: ``dataset.classes``: folders that are classes whatever their names and places.

    Raises:
        UserError: there are no images, some lie in no class folder, a folder holds both images
            and folders of images, folders of one name lie in different places, or folders look
            like parts of an archive.
    """
    paths = find_images(root, outside_root=outside_root)
    image_ids = [path.relative_to(root).as_posix() for path in paths]
    kept, notes = leave_out(image_ids, exclude)
    rows: list[dict[str, Any]] = []
    places: dict[str, dict[str, str]] = {}
    for image_id, path, keep in zip(image_ids, paths, kept, strict=True):
        if keep:
            row, place = _row(root, image_id, path)
            rows.append(row)
            places.setdefault(row["label"], {}).setdefault(place, image_id)
    _refuse_parts(root, places, classes)
    _refuse_nested(root, {Path(row["path"]).parent for row in rows})
    _refuse_scattered(root, places, classes)
    return as_listed(rows, notes=notes)


@lru_cache(maxsize=10_000)
def published_part(folder: str) -> str:
    """Return the part of a published split that a folder's name stands for; empty if none.

    Args:
        folder: its name: ``Train``, ``val_set``, ``testing images``.
    """
    words = _words(folder)
    parts = [PUBLISHED[word] for word in words if word in PUBLISHED]
    return parts[0] if len(parts) == 1 and _HOLDERS.issuperset(words) else ""


def _row(root: Path, image_id: str, path: Path) -> tuple[dict[str, Any], str]:
    """An image's row, and where its class folder lies, apart from the published part."""
    *parents, _ = image_id.split("/")
    published = next(filter(None, map(published_part, parents)), "")
    folders = list(parents)
    while len(folders) > 1 and _is_holder(folders[-1]):
        folders.pop()  # nevus/images/1.jpg shows a nevus
    if not folders or published_part(folders[-1]):
        raise UserError(
            f"dataset.root={root}: {image_id} lies in no class folder; expected <class>/<image>, "
            "or Train/<class>/<image> and Test/<class>/<image>." + _advice(root)
        )
    place = "/".join(folder for folder in folders if not published_part(folder))
    row = {"image_id": image_id, "path": str(path), "label": folders[-1], "published": published}
    return row, place


@lru_cache(maxsize=10_000)
def _is_holder(folder: str) -> bool:
    return _HOLDERS.issuperset(_words(folder)) and not published_part(folder)


def _refuse_parts(root: Path, folders: Collection[str], classes: Collection[str]) -> None:
    """No class is called like a part of an archive or like a folder of any images.

    Args:
        root: of the dataset.
        folders: names of all class folders.
        classes: those that are classes whatever their names.
    """
    parts = sorted(name for name in folders if name not in classes and _is_part(name))
    if not parts:
        return
    are = "looks like a folder" if len(parts) == 1 else "look like folders"
    raise UserError(
        f"dataset.root={root}: {some(parts)} {are} of images of several classes, as archives have "
        f"them; expected <class>/<image>.{_advice(root)}" + _meant(folders, "these are classes")
    )


def _is_part(name: str) -> bool:
    words = _words(name)
    if words and words[-1].isdigit():
        return bool(_PARTS.intersection(words))
    ends = words and words[-1] in {"input", "inputs"} and PUBLISHED.keys() & set(words)
    return bool(ends or (words and _HOLDERS.issuperset(words)))


def _refuse_nested(root: Path, folders: Collection[Path]) -> None:
    """No folder of images lies in another: which of the two would be the class?"""
    for folder in sorted(folders):
        outer = next((f for f in folder.parents if f in folders and f != root), None)
        if outer is not None:
            inner = folder.relative_to(root).as_posix()
            raise UserError(
                f"dataset.root={root}: {outer.relative_to(root).as_posix()} holds images and, in "
                f"{inner}, a folder of images; expected either, so that the class is plain."
            )


def _refuse_scattered(
    root: Path, places: Mapping[str, Mapping[str, str]], classes: Collection[str]
) -> None:
    """Folders of one name lie in one place, apart from Train and Test: else are they one class?

    Args:
        root: of the dataset.
        places: name of a class folder -> where it lies -> one of its images.
        classes: those that are one class wherever their folders lie.
    """
    for name, where in places.items():
        if len(where) > 1 and name not in classes:
            folders = [PurePosixPath(image_id).parent.as_posix() for image_id in where.values()]
            raise UserError(
                f"dataset.root={root}: {len(where)} folders are called {name}: {some(folders)}. "
                f"Rename them if they are different classes.{_meant(places, 'they are one class')}"
            )


def _meant(names: Collection[str], what: str) -> str:
    """The line that takes folders for classes as they are called, after a blank."""
    if not 2 <= len(names) <= MOST_LISTED:
        return ""
    line = shlex.quote(f"dataset.classes=[{','.join(sorted(names))}]")
    return f" If {what}, say so: {line}"


def _advice(root: Path) -> str:
    """The reader that fits, as a sentence with a blank before it."""
    line = reader_that_fits(root)
    if line:
        return f" Instead, `{line}` reads it."
    return " Without class folders, list the images and their labels in a table (dataset=csv)."


def _words(name: str) -> list[str]:
    """A folder's name as words in lower case: ``imgs_part1`` is imgs, part, 1."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())
