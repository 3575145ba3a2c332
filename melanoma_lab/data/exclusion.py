"""Leave out files that are no photographs: masks and the like, and what the user names.

Archives ship segmentations and superpixels beside the photographs they were drawn on. They end as
images do, would be trained on as images of the same class, and are told apart by their names only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.errors import UserError, some

#: How a file or folder is called that holds a mask, whatever else is there.
_MASK: Final = r"(?:binary[ _-]?)?masks?|segmentations?|superpixels?|ground[ _-]?truths?"
#: How a file is called that lies beside the photograph it was made from.
_BESIDE: Final = r"seg|segmented|lesion|roi|gt|labels?|annotations?|annotated|contours?|borders?"
_BESIDE_TOO: Final = r"outlines?|overlays?|heat[ _-]?maps?|saliency|attribute_\w+"
_IS_MASK: Final = re.compile(
    rf"(?:.*[ _.\-])?(?:{_MASK})(?:[ _.\-]?\d+)?|(?:{_MASK})[ _.\-].+", re.IGNORECASE
)
_IS_BESIDE: Final = re.compile(
    rf"(?P<photograph>.+?)[ _.\-](?:{_BESIDE}|{_BESIDE_TOO})(?:[ _.\-]?\d+)?", re.IGNORECASE
)
_MASK_FOLDER: Final = re.compile(rf"(?:.*[ _.\-])?(?:{_MASK})", re.IGNORECASE)


def leave_out(
    image_ids: Sequence[str], patterns: Sequence[str]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Choose the images of a dataset among its files.

    Args:
        image_ids: paths below the dataset's root, with ``/``; n of them.
        patterns: ``dataset.exclude``: shell patterns of a path, a file's name or a folder's name,
            whatever the case; one that begins with ``!`` keeps what matches. The last one that
            matches counts, and masks are left out before the first.

    Returns:
        bool, shape (n,), which are kept; and what was left out, a sentence each.

    Raises:
        UserError: nothing is kept.
    """
    photographs = {_stem(name).lower() for name in image_ids}
    masks = [name for name in image_ids if _is_mask(name, photographs)]
    excluded = set(masks)
    unmatched = []
    for pattern in patterns:
        matching = {name for name in image_ids if _matches(name, pattern.removeprefix("!"))}
        excluded = excluded - matching if pattern.startswith("!") else excluded | matching
        if not matching:
            unmatched.append(pattern)
    masks = [name for name in masks if name in excluded]
    others = sorted(excluded.difference(masks))
    notes = []
    if masks:
        keep = f"!*{PurePosixPath(masks[0]).suffix}"
        notes.append(
            f"{_files(masks)} left out, named like masks: {some(masks)}. To keep them, set "
            f"'dataset.exclude={keep}'."
        )
    if others:
        notes.append(f"{_files(others)} left out (dataset.exclude): {some(others)}.")
    if unmatched:
        notes.append(f"dataset.exclude: no file is like {some(unmatched)}.")
    if image_ids and len(excluded) == len(image_ids):
        raise UserError(f"dataset: no images are left. {' '.join(notes)}")
    return np.array([name not in excluded for name in image_ids], bool), tuple(notes)


def _files(names: Sequence[str]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names):,} files are"


def _is_mask(image_id: str, photographs: set[str]) -> bool:
    """Whether the name of a file or of its folders says that it is a mask.

    Args:
        image_id: its path below the root.
        photographs: names of all files without their endings, in lower case.
    """
    stem = _stem(image_id)
    if _IS_MASK.fullmatch(stem) or _is_mask_folder(image_id.rpartition("/")[0]):
        return True
    beside = _IS_BESIDE.fullmatch(stem)
    return beside is not None and beside["photograph"].lower() in photographs


@lru_cache(maxsize=10_000)
def _is_mask_folder(path: str) -> bool:
    return any(_MASK_FOLDER.fullmatch(folder) for folder in path.split("/"))


def _stem(image_id: str) -> str:
    """``a/x.tar.png`` is ``x.tar``; pathlib takes ten times as long for each of 400,000 images."""
    return image_id.rpartition("/")[2].rpartition(".")[0]


def _matches(image_id: str, pattern: str) -> bool:
    """Whether a pattern fits the whole path, or the name of the file or of one of its folders."""
    pattern = pattern.lower().rstrip("/")
    path = image_id.lower()
    return fnmatchcase(path, pattern) or any(fnmatchcase(part, pattern) for part in path.split("/"))
