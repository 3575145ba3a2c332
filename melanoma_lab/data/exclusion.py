"""Leave out files that are no photographs: masks and the like, and what the user names.

Archives ship segmentations and superpixels beside the photographs they were drawn on. They end as
images do, would be trained on as images of the same class, and are told apart by their names only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.name_words import split_words

#: Words by which a file or folder is one of masks, whatever else is there.
MASK_WORDS: Final = frozenset(
    {"mask", "masks", "binarymask", "hairmask", "segmentation", "segmentations", "superpixel"}
    | {"superpixels", "groundtruth", "groundtruths", "trimap"}
)
#: Words by which a file is made from the photograph that it is called after.
ANNOTATION_WORDS: Final = frozenset(
    {"annot", "annotated", "annotation", "annotations", "binary", "border", "borders", "contour"}
    | {"contours", "gt", "heatmap", "label", "labels", "lesion", "masked", "outline", "outlines"}
    | {"overlay", "overlays", "roi", "saliency", "seg", "segmented"}
)
#: Of these, the ones by which a folder is one of such files.
ANNOTATION_FOLDERS: Final = ANNOTATION_WORDS - {"binary", "border", "label", "lesion"}
#: Words that may follow them: x_mask_final, x_labels_colored.
SUFFIX_WORDS: Final = frozenset({"color", "colored", "coloured", "final", "jpg", "new", "png", "v"})


def exclude_files(
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
        notes.append(f"dataset.exclude: no file is like {format_list(unmatched)}.")
    if image_ids and len(excluded) == len(image_ids):
        raise UserError(f"dataset: no images are left. {' '.join(notes)}")
    return np.array([name not in excluded for name in image_ids], bool), tuple(notes)


def _files(names: Sequence[str]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names):,} files are"


def _is_mask(image_id: str, stems: Counter[str]) -> bool:
    """Whether the name of a file or of its folders says that it is a mask.

    Args:
        image_id: its path below the root.
        stems: names of all files without their endings, in lower case, and how often they occur.
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
    """Whether what stands before the last such word in a file's name is another file's name."""
    before = stem.lower()[: stem.lower().rfind(word)].rstrip(" _.-([")
    return bool(before) and before in stems


@lru_cache(maxsize=10_000)
def _folder_has_word(folder: str, words: frozenset[str]) -> bool:
    """Whether the name of a folder, or of one that it lies in, has one of some words."""
    return any(
        words.intersection(found) or {"ground", "truth"} <= set(found)
        for found in map(split_words, folder.split("/"))
    )


def _stem(image_id: str) -> str:
    """``a/x.tar.png`` is ``x.tar``; pathlib takes ten times as long for each of 400,000 images."""
    return image_id.rpartition("/")[2].rpartition(".")[0]


def _matches(image_id: str, pattern: str) -> bool:
    """Whether a pattern fits the whole path, or the name of the file or of one of its folders."""
    pattern = pattern.lower().replace("\\", "/").removeprefix("./").rstrip("/")
    path = image_id.lower()
    return fnmatchcase(path, pattern) or any(fnmatchcase(part, pattern) for part in path.split("/"))
