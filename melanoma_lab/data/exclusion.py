"""Leave out masks and similar files, files that the user excludes, and unreadable files.

Archives contain segmentations and superpixels next to the photographs. They have the same file
endings and only their names tell them apart; without this they would be used as images of the same
class.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.overrides import format_override
from melanoma_lab.config.schema.data import Dataset, OnUnreadable
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.columns import split_words

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
#: Largest number of unreadable files that a message names; the audit lists all of them.
N_SHOWN: Final = 10


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

    Args:
        image_id: the file's path relative to the root.
        stems: name of a file without its ending, in lower case -> how often it occurs.
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
    """Return a file's name without its ending: ``x.tar`` of ``a/x.tar.png``.

    pathlib takes ten times as long, which matters for 400,000 images.
    """
    return image_id.rpartition("/")[2].rpartition(".")[0]


def _matches(image_id: str, pattern: str) -> bool:
    """Return whether a pattern matches the whole path, or the name of the file or of a folder."""
    pattern = pattern.lower().replace("\\", "/").removeprefix("./").rstrip("/")
    path = image_id.lower()
    return fnmatchcase(path, pattern) or any(fnmatchcase(part, pattern) for part in path.split("/"))


def drop_unreadable(
    manifest: pd.DataFrame, unreadable: Mapping[str, str], dataset: Dataset
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Refuse or leave out images that could not be decoded.

    Args:
        manifest: table with the columns path and digest.
        unreadable: digest -> why its files cannot be decoded.
        dataset: the dataset's configuration; ``on_unreadable`` chooses the treatment.

    Returns:
        The rows that can be read, and a note on those that were left out, if any.

    Raises:
        UserError: images cannot be read and must not be skipped, or none can be read. The message
            names the first ``N_SHOWN`` files, and the command that lists all.
    """
    reason = manifest["digest"].map(unreadable)
    bad = manifest.loc[reason.notna(), "path"]
    if bad.empty:
        return manifest, ()
    what = f"{len(bad)} of {len(manifest)} images cannot be read"
    shown = [f"  {path}: {why}" for path, why in zip(bad, reason.loc[bad.index], strict=True)][
        :N_SHOWN
    ]
    if len(bad) > N_SHOWN:
        root = f" dataset.root={shlex.quote(dataset.root)}" if dataset.root else ""
        shown.append(
            f"  and {len(bad) - N_SHOWN} more, all listed by: "
            + format_lab_command("audit", f"dataset={dataset.name}{root}")
        )
    listed = "\n".join(shown)
    if dataset.on_unreadable is OnUnreadable.error:
        raise UserError(
            f"{what}:\n{listed}\nRepair or remove them, or set dataset.on_unreadable=skip."
        )
    if len(bad) == len(manifest):
        raise UserError(f"dataset: none of {len(manifest)} images can be read:\n{listed}")
    return manifest.loc[reason.isna()].reset_index(drop=True), (f"{what}; skipped:\n{listed}",)
