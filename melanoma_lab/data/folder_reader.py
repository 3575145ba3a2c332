"""Read a tree of class folders, and refuse folders of archives that only look like classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.columns import detect_grouping
from melanoma_lab.data.image_files import exclude_files, find_images, split_words
from melanoma_lab.data.listing import Listing, build_listing
from melanoma_lab.data.table_reader import PUBLISHED_SPLITS, suggest_reader

#: Largest number of classes or images that an override in a message lists.
MAX_LISTED: Final = 20
#: Words that name a part of an archive if a number or letter follows: imgs_part_1, part_b.
_PARTS: Final = frozenset(
    {"archive", "batch", "chunk", "disc", "disk", "folder", "fold", "image", "images", "img"}
    | {"imgs", "msk", "part", "parts", "set", "shard", "sonic", "split", "subset", "uda", "vol"}
    | {"volume", "zip"}
)
_NUMBERS: Final = frozenset({"one", "two", "three", "four", "five", "copy"})
#: Words of folder names that say nothing about the class: images, train_data, jpeg.
_HOLDERS: Final = frozenset(
    {"all", "data", "dataset", "files", "image", "images", "img", "imgs", "input", "inputs"}
    | {"jpeg", "jpegs", "jpg", "photo", "photos", "picture", "pictures", "png", "raw", "set"}
    | PUBLISHED_SPLITS.keys()
)
#: Largest share of images outside class folders that may just be excluded; with more, the folder
#: has no classes.
MAX_STRAY_SHARE: Final = 0.1


def read_class_folders(
    root: Path,
    *,
    outside_root: bool = False,
    exclude: Sequence[str] = (),
    classes: Collection[str] = (),
) -> Listing:
    """List the images of a tree of class folders: ``<class>/<image>``, ``Train/<class>/<image>``.

    Args:
        outside_root: follow links that lead out of the folder.
        classes: value of ``dataset.classes``: folders that are classes, whatever their names and
            places.

    Raises:
        UserError: there are no images, some are in no class folder, a folder contains both images
            and folders of images, folders of one name are in different places, or folders look
            like parts of an archive.
    """
    paths = find_images(root, outside_root=outside_root)
    image_ids = [path.relative_to(root).as_posix() for path in paths]
    kept, notes = exclude_files(image_ids, exclude)
    rows: list[dict[str, Any]] = []
    strays: list[str] = []
    places: dict[str, dict[str, str]] = {}
    for image_id, path, keep in zip(image_ids, paths, kept, strict=True):
        if not keep:
            continue
        label, published, place = _class_of(image_id)
        if label:
            where = {"image_id": image_id, "path": str(path)}
            rows.append({**where, "label": label, "published": published})
            places.setdefault(label, {}).setdefault(place, image_id)
        else:
            strays.append(image_id)
    _refuse_strays(root, strays, len(rows))
    _refuse_parts(root, places, classes)
    _refuse_groups(root, rows)
    _refuse_nested(root, {Path(row["path"]).parent for row in rows})
    _refuse_scattered(root, places, classes)
    return build_listing(rows, notes=notes)


@lru_cache(maxsize=10_000)
def parse_published_split(folder: str) -> str:
    """Return the part of a published split that a folder's name stands for; empty if none.

    Such names are ``Train``, ``val_set``, ``testing images``.
    """
    words = split_words(folder)
    parts = [PUBLISHED_SPLITS[word] for word in words if word in PUBLISHED_SPLITS]
    return parts[0] if len(parts) == 1 and _HOLDERS.issuperset(words) else ""


def _class_of(image_id: str) -> tuple[str, str, str]:
    """Return the class of an image, its published part, and the place of its class folder.

    The class is empty if the image is in no class folder. The place distinguishes class folders of
    the same name; Train and Test count as one place, and so do nevus and nevus/images.
    """
    *parents, _ = image_id.split("/")
    published = next(filter(None, map(parse_published_split, parents)), "")
    folders = list(parents)
    while len(folders) > 1 and _is_holder(folders[-1]):
        folders.pop()
    if not folders or parse_published_split(folders[-1]):
        return "", published, ""
    others = [
        name for name in folders[:-1] if not parse_published_split(name) and not _is_holder(name)
    ]
    return folders[-1], published, "/".join([*others, "published" if published else ""])


def _refuse_strays(root: Path, strays: Sequence[str], n_others: int) -> None:
    """Refuse images that are in no class folder; suggest to exclude them if they are few."""
    if not strays:
        return
    text = (
        f"dataset.root={root}: {format_list(strays)} {'lies' if len(strays) == 1 else 'lie'} in no "
        "class folder; expected <class>/<image>, or Train/<class>/<image> and Test/<class>/<image>."
    )
    if len(strays) <= MAX_STRAY_SHARE * n_others and len(strays) <= MAX_LISTED:
        raise UserError(f"{text} To leave them out: {format_override('dataset.exclude', strays)}")
    raise UserError(text + _format_advice(root))


@lru_cache(maxsize=10_000)
def _is_holder(folder: str) -> bool:
    return _HOLDERS.issuperset(split_words(folder)) and not parse_published_split(folder)


def _refuse_parts(root: Path, folders: Collection[str], classes: Collection[str]) -> None:
    """Refuse class folders named like a part of an archive or like a folder of any images."""
    parts = sorted(name for name in folders if name not in classes and _is_part(name))
    if not parts:
        return
    are = "looks like a folder" if len(parts) == 1 else "look like folders"
    raise UserError(
        f"dataset.root={root}: {format_list(parts)} {are} of images of several classes, a part "
        f"of an archive; expected <class>/<image>.{_format_advice(root)}"
        + _format_classes_hint(folders, "these are classes")
    )


def _is_part(name: str) -> bool:
    words = split_words(name)
    if _HOLDERS.issuperset(words):
        return bool(words)
    if PUBLISHED_SPLITS.keys() & set(words):  # ISIC_2020_Training_JPEG, mel_train
        return True
    unnumbered = list(words)
    while unnumbered and _is_number(unnumbered[-1]):
        unnumbered.pop()
    return unnumbered != words and bool(_PARTS.intersection(unnumbered))


def _is_number(word: str) -> bool:
    """Return whether a word numbers a part of an archive, as ``2``, ``two``, ``b``, ``copy`` do."""
    return word.isdigit() or len(word) == 1 or word in _NUMBERS


def _refuse_groups(root: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Refuse folders of single patients or lesions: a tree cannot say that they must stay whole."""
    folders = {name for row in rows for name in row["image_id"].split("/")[:-1]}
    groups = sorted(f for f in folders if detect_grouping(f) and any(map(str.isdigit, f)))
    if groups:
        raise UserError(
            f"dataset.root={root}: {format_list(groups)} {'looks' if len(groups) == 1 else 'look'} "
            "like folders of a single patient or lesion, which dataset=folder cannot keep on one "
            "side of a split. List the images in a table with the columns image_id, label and "
            "patient_id (dataset=csv)."
        )


def _refuse_nested(root: Path, folders: Collection[Path]) -> None:
    """Refuse a folder of images inside another one, because either could be the class."""
    for folder in sorted(folders):
        outer = next((f for f in folder.parents if f in folders and f != root), None)
        if outer is not None:
            inner = folder.relative_to(root).as_posix()
            raise UserError(
                f"dataset.root={root}: {outer.relative_to(root).as_posix()} contains images and "
                f"also, in {inner}, a folder of images; expected one or the other, so that the "
                "class is clear."
            )


def _refuse_scattered(
    root: Path, places: Mapping[str, Mapping[str, str]], classes: Collection[str]
) -> None:
    """Refuse folders of one name in several places, because they may be different classes.

    ``places`` maps the name of a class folder to its places, each with one of its images. Train and
    Test count as one place.
    """
    for name, where in places.items():
        if len(where) > 1 and name not in classes:
            folders = [PurePosixPath(image_id).parent.as_posix() for image_id in where.values()]
            raise UserError(
                f"dataset.root={root}: {len(where)} folders are called {name}: "
                f"{format_list(folders)}. Rename them if they are different "
                f"classes.{_format_classes_hint(places, 'they are one class')}"
            )


def _format_classes_hint(names: Collection[str], what: str) -> str:
    """Suggest the override that uses folders as classes; the sentence begins with a space."""
    if not 2 <= len(names) <= MAX_LISTED:
        return ""
    return f" If {what}, say so: {format_override('dataset.classes', sorted(names))}"


def _format_advice(root: Path) -> str:
    """Suggest a reader that fits the folder; the sentence begins with a space."""
    line = suggest_reader(root)
    if line:
        return f" Instead, `{line}` reads it."
    return " Without class folders, list the images and their labels in a table (dataset=csv)."
