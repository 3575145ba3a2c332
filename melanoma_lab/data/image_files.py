"""Find the image files of a folder: inside the dataset's root, and no masks or excluded files.

Archives contain segmentations and superpixels next to the photographs. They have the same file
endings and only their names tell them apart; without this they would be used as images of the same
class.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list

#: Ending of an image file, in lower case -> Pillow's name of its format.
IMAGE_FORMATS: Final = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".png": "PNG",
    ".webp": "WEBP",
    **dict.fromkeys((".jfif", ".jpeg", ".jpg"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}
IMAGE_SUFFIXES: Final = frozenset(IMAGE_FORMATS)
#: Endings and names of files that are common next to images and that nobody means as images.
COMPANIONS: Final = frozenset(
    {".csv", ".html", ".json", ".md", ".pdf", ".txt", ".xml", ".yaml", ".yml", ".zip"}
    | {"thumbs.db", "desktop.ini", "license", "readme"}
)

#: Words in the name of a file or folder that always make it one of masks.
MASK_WORDS: Final = frozenset(
    {"mask", "masks", "binarymask", "hairmask", "segmentation", "segmentations", "superpixel"}
    | {"superpixels", "groundtruth", "groundtruths", "trimap"}
)
#: Words that make a file a derivative of a photograph if the rest of its name is the photograph's.
ANNOTATION_WORDS: Final = frozenset(
    {"annot", "annotated", "annotation", "annotations", "binary", "border", "borders", "contour"}
    | {"contours", "gt", "heatmap", "label", "labels", "lesion", "masked", "outline", "outlines"}
    | {"overlay", "overlays", "roi", "saliency", "seg", "segmented"}
)
#: Those of these words that also count in the name of a folder.
ANNOTATION_FOLDERS: Final = ANNOTATION_WORDS - {"binary", "border", "label", "lesion"}
#: Words that may follow such words in a name: x_mask_final, x_labels_colored.
SUFFIX_WORDS: Final = frozenset({"color", "colored", "coloured", "final", "jpg", "new", "png", "v"})


def split_words(name: str) -> list[str]:
    """Return the words of a column's, folder's or file's name, in lower case without accents.

    ``PatientID_2`` is patient, id, 2; ``IDPatient`` is id, patient; ``imgs_part1`` is imgs, part,
    1; ``Läsion-Nr.`` is lasion, nr.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())


def find_images(
    root: Path, *, outside_root: bool = False, boundary: Path | None = None
) -> list[Path]:
    """Find all image files below a folder, sorted; hidden files and folders are left out.

    Links to folders that are searched anyway are not followed.

    Args:
        outside_root: follow links that lead out of the boundary; else they are skipped, and
            ``find_outside_links`` lists them.
        boundary: the dataset's root; None: ``root``.

    Raises:
        UserError: there are no images, or a name is not UTF-8.
    """
    found = list(walk_images(root, outside_root=outside_root, boundary=boundary))
    if not found:
        raise UserError(f"dataset.root={root}: {describe_missing_images(root)}")
    for path in found:
        if not is_utf8(str(path)):
            shown = str(path).encode(errors="backslashreplace").decode()
            raise UserError(f"{shown}: this name is not UTF-8; rename the file or its folder.")
    return sorted(found)


def walk_images(
    root: Path, *, outside_root: bool = False, boundary: Path | None = None
) -> Iterator[Path]:
    """Yield all image files below a folder, with the names of only one folder in memory.

    A folder's own files come first, sorted, then its subfolders. The arguments are those of
    ``find_images``.

    Raises:
        UserError: a folder cannot be searched.
    """
    inside = (boundary or root).resolve()
    for folder, files in _walk_folders(root, inside, outside_root=outside_root):
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and (
                outside_root or not _leads_outside(folder / name, inside)
            ):
                yield folder / name


def describe_missing_images(root: Path) -> str:
    """Describe a folder without images: the expected endings, and the files found instead."""
    others = _format_kinds(find_ignored_files(root)[0])
    return f"no images in it; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}" + (
        f"; found {others}." if others else "."
    )


def find_outside_links(root: Path) -> list[str]:
    """Find links to folders and images outside a folder, as sorted relative paths."""
    inside = root.resolve()
    return sorted(
        Path(folder, name).relative_to(root).as_posix()
        for folder, subfolders, files in os.walk(root)
        for name in (*subfolders, *(f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES))
        if not name.startswith(".") and _leads_outside(Path(folder, name), inside)
    )


def describe_outside_links(root: Path) -> list[str]:
    """Describe the links of ``find_outside_links`` in one sentence; return [] if there are none."""
    links = find_outside_links(root)
    if not links:
        return []
    what = f"{links[0]} leads" if len(links) == 1 else f"{len(links)} links ({links[0]}...) lead"
    return [f"{what} out of dataset.root: not followed, unless dataset.outside_root=true."]


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path or link that leads out of the dataset's resolved root.

    Raises:
        UserError: it leads out; the message names the key that allows it.
    """
    if target := _target_outside(path, root):
        raise UserError(
            f"{path}: leads out of dataset.root, to {target}. Set dataset.outside_root=true if "
            "this is intended."
        )


def find_ignored_files(root: Path) -> tuple[Counter[str], list[str]]:
    """Find files and folders that are ignored but may have been meant as images or classes.

    Links are not followed.

    Returns:
        Ending -> number of files that are neither images nor ``COMPANIONS``; and the folders
        without images at any depth, as sorted relative paths.
    """
    kinds: Counter[str] = Counter()
    visited: set[Path] = set()
    with_images: set[Path] = set()
    for folder, files in _walk_folders(root, root.resolve(), outside_root=False):
        suffixes = [Path(name).suffix.lower() for name in files]
        kinds.update(
            suffix or "without an ending"
            for name, suffix in zip(files, suffixes, strict=True)
            if suffix not in IMAGE_SUFFIXES and not {suffix, name.lower()} & COMPANIONS
        )
        visited.add(folder)
        if IMAGE_SUFFIXES.intersection(suffixes):
            with_images |= {folder, *folder.parents}
    empty = visited - with_images - {root}
    return kinds, sorted(folder.relative_to(root).as_posix() for folder in empty)


def describe_ignored_files(root: Path) -> list[str]:
    """Describe the files and folders of ``find_ignored_files``, a sentence each."""
    kinds, empty = find_ignored_files(root)
    sentences = []
    if kinds:
        sentences.append(
            f"{kinds.total()} files were ignored, because their names do not end like those of "
            f"images: {_format_kinds(kinds)}."
        )
    if empty:
        names = format_list(empty, 10)
        sentences.append(f"{len(empty)} folders contain no images and are ignored: {names}.")
    return sentences


def find_table_file(folder: Path, name: str) -> Path | None:
    """Return the file that a path in a table means; None if there is none.

    The path is relative to the folder; it may have Windows's separators, or lack an image's ending.
    """
    for spelt in dict.fromkeys((name, PureWindowsPath(name).as_posix())):
        path = folder / spelt
        guesses = [] if path.suffix.lower() in IMAGE_SUFFIXES else sorted(IMAGE_SUFFIXES)
        for ending in ("", *guesses):
            if _is_file(candidate := Path(f"{path}{ending}")):
                return candidate
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def suggest_file(folder: Path, name: str) -> str:
    """Suggest files whose names differ from a missing one only in ending or capitals.

    The sentence begins with a space; it is empty if there is no such file.
    """
    path = folder / PureWindowsPath(name).as_posix()
    try:
        others = [other.name for other in path.parent.iterdir() if other.is_file()]
    except (OSError, ValueError):  # no such folder, or an invalid name
        return ""
    same = sorted(other for other in others if Path(other).stem.lower() == path.stem.lower())
    return f" The folder has {format_list(same)}." if same else ""


def _leads_outside(path: Path, root: Path) -> bool:
    return path.is_symlink() and _target_outside(path, root) is not None


def _target_outside(path: Path, root: Path) -> Path | None:
    """Return the target of a path that leaves the resolved root; None if it stays inside."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, up to Python 3.12
        return None  # it leads nowhere; opening it will fail
    return None if target.is_relative_to(root) else target


def _format_kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))


def _walk_folders(
    root: Path, inside: Path, *, outside_root: bool
) -> Iterator[tuple[Path, list[str]]]:
    """Yield every visible folder with the names of its visible files.

    Links that lead out of ``inside`` are followed only with ``outside_root``. Every folder is
    searched once, even if several links lead to it.
    """
    pending, searched = [root], [inside, root.resolve()]
    while pending:
        for folder, subfolders, files in os.walk(pending.pop(), onerror=_refuse_unsearchable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in subfolders:
                path = Path(folder, name)
                target = (
                    _target_outside(path, inside) if outside_root and path.is_symlink() else None
                )
                if target and not any(target.is_relative_to(place) for place in searched):
                    searched.append(target)
                    pending.append(path)
            yield Path(folder), [name for name in files if not name.startswith(".")]


def _refuse_unsearchable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be searched ({error.strerror}).") from error


def is_utf8(name: str) -> bool:
    """Return whether a file's name is UTF-8; Python reads other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def exclude_files(
    image_ids: Sequence[str], patterns: Sequence[str]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Decide which files of a dataset are used as images.

    Args:
        image_ids: n paths relative to the dataset's root, with ``/``.
        patterns: ``dataset.exclude``: shell patterns of a path, file name or folder name, in any
            case; a pattern that begins with ``!`` keeps matching files. Masks are left out first;
            then the last matching pattern decides.

    Returns:
        bool, shape (n,), true for files that are used; and notes on those left out, a sentence
        each.

    Raises:
        UserError: no file is left.
    """
    stems = Counter(_stem(name).lower() for name in image_ids)
    masks = [name for name in image_ids if _is_mask(name, stems)]
    excluded = set(masks)
    unmatched = []
    for pattern in patterns:
        matching = {name for name in image_ids if _matches(name, pattern.strip().removeprefix("!"))}
        keeps = pattern.strip().startswith("!")
        excluded = excluded - matching if keeps else excluded | matching
        if not matching:
            unmatched.append(pattern)
    masks = [name for name in masks if name in excluded]
    others = sorted(excluded.difference(masks))
    notes = []
    if masks:
        endings = sorted({f"!*{PurePosixPath(name).suffix}" for name in masks})
        notes.append(
            f"{_files(masks)} left out, named like masks: {format_list(masks)}. To keep them: "
            + format_override("dataset.exclude", [*patterns, *endings])
        )
    if others:
        notes.append(f"{_files(others)} left out (dataset.exclude): {format_list(others)}.")
    if unmatched:
        notes.append(f"dataset.exclude: no file matches {format_list(unmatched)}.")
    if image_ids and len(excluded) == len(image_ids):
        raise UserError(f"dataset: no images are left. {' '.join(notes)}")
    return np.array([name not in excluded for name in image_ids], bool), tuple(notes)


def _files(names: Sequence[str]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names):,} files are"


def _is_mask(image_id: str, stems: Counter[str]) -> bool:
    """Return whether the name of a file or its folders is that of a mask.

    ``stems`` counts the files' names without endings, in lower case.
    """
    folder, stem = image_id.rpartition("/")[0], _stem(image_id)
    if _folder_has_word(folder, MASK_WORDS) or (
        _folder_has_word(folder, ANNOTATION_FOLDERS) and stems[stem.lower()] > 1
    ):
        return True
    words = split_words(stem)
    numbers = 0
    while words and (words[-1].isdigit() or len(words[-1]) == 1 or words[-1] in SUFFIX_WORDS):
        numbers += words.pop().isdigit()
    if {*words[:1], *words[-1:]} & MASK_WORDS or words[-2:] == ["ground", "truth"]:
        return True
    if not words or (words[-1] == "lesion" and numbers):  # p1_lesion2: a close-up
        return False
    if "attribute" in words:
        return _begins_as_photograph(stem, "attribute", stems)
    return words[-1] in ANNOTATION_WORDS and _begins_as_photograph(stem, words[-1], stems)


def _begins_as_photograph(stem: str, word: str, stems: Counter[str]) -> bool:
    """Return whether the part of a file's name before the last ``word`` is another file's name."""
    before = stem.lower()[: stem.lower().rfind(word)].rstrip(" _.-([")
    return bool(before) and before in stems


@lru_cache(maxsize=10_000)
def _folder_has_word(folder: str, words: frozenset[str]) -> bool:
    """Return whether the name of a folder or of one of its parents contains one of some words."""
    return any(
        words.intersection(found) or {"ground", "truth"} <= set(found)
        for found in map(split_words, folder.split("/"))
    )


def _stem(image_id: str) -> str:
    # pathlib takes ten times as long, which matters for 400,000 images.
    return image_id.rpartition("/")[2].rpartition(".")[0]


def _matches(image_id: str, pattern: str) -> bool:
    """Return whether a pattern matches the whole path, or the name of the file or of a folder."""
    pattern = pattern.lower().replace("\\", "/").removeprefix("./").rstrip("/")
    path = image_id.lower()
    return fnmatchcase(path, pattern) or any(fnmatchcase(part, pattern) for part in path.split("/"))
