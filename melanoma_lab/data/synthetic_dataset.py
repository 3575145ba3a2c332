"""The synthetic dataset: dermoscopy-like lesions drawn by the program, reproducible from a seed.

It lets every command run without a download. The pictures imitate the difficulties of real
dermoscopy (few images, unbalanced and overlapping classes, several photographs of one lesion,
hairs, cameras) and not dermatology: results on them say nothing about skin. They are drawn once and
stored in the cache.
"""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.core.checksummed_files import (
    is_folder_intact,
    report_cache_errors,
    write_folder_checksums,
)
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_text, write_folder_atomically
from melanoma_lab.core.locks import hold_lock
from melanoma_lab.data.synthetic_classes import (
    LesionClass,
    choose_lesion_classes,
    normalise_class_name,
    sample_lesion,
)
from melanoma_lab.data.synthetic_pictures import CAMERAS, paint_patch, take_photograph

# Part of the cache's key: increase it with every change of a pixel or a name.
DRAWING_VERSION = 1

# Probabilities of one, two, three and four photographs of a lesion.
_PHOTOGRAPHS = (0.5, 0.25, 0.15, 0.1)


def draw_dataset(
    folder: Path,
    *,
    classes: Sequence[str],
    lesions: int,
    image_size: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> None:
    """Draw the dataset: ``images/<image_id>.png`` and ``metadata.csv`` in ``folder``.

    ``checksums.json`` next to them later shows whether they are intact.

    The table has the columns image_id (the file's name without its extension), lesion_id, label
    (a name of ``classes``) and source (the camera, independent of the label). The same arguments
    give the same bytes with the same versions of NumPy and Pillow. A lesion's pictures depend only
    on its number, its class and the seed: more lesions add pictures and change none.

    Args:
        classes: names of at least two classes; ISIC's classes are drawn as described in the table.
        lesions: number of lesions of all classes together, at least one of each class.
        image_size: width and height of the pictures in pixels, at least 16.

    Raises:
        UserError: an argument is out of its range.
    """
    _check(classes, lesions, image_size, seed)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = choose_lesion_classes(classes)
    rows: list[tuple[str, str, str, str]] = []
    for index, label in enumerate(apportion_lesions([row.share for row in table], lesions)):
        source, pictures = draw_lesion(table[label], index, image_size, seed)
        for picture in pictures:
            image_id = f"SYN_{len(rows):07d}"
            Image.fromarray(picture).save(images / f"{image_id}.png", compress_level=1)
            rows.append((image_id, f"SYNL_{index:06d}", classes[label], source))
        if progress is not None:
            progress(index + 1, lesions)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_id", "lesion_id", "label", "source"))
        writer.writerows(rows)
    write_folder_checksums(folder)


def ensure_dataset(
    cache: Path,
    *,
    classes: Sequence[str],
    lesions: int,
    image_size: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> Path:
    """Return the folder of the dataset in the cache; draw it first if it is missing or damaged.

    The folder appears complete, so that an incomplete one of a killed process is never used. If
    several processes need the dataset, one draws it and the others wait.

    Returns:
        ``cache/synthetic/<key>``; the key is a digest of all arguments and ``DRAWING_VERSION``.

    Raises:
        UserError: an argument is out of its range.
        RunError: the cache cannot be written.
    """
    _check(classes, lesions, image_size, seed)
    arguments = [DRAWING_VERSION, list(classes), lesions, image_size, seed]
    key = hash_text(json.dumps(arguments), 16)
    folder = cache / "synthetic" / key
    if is_folder_intact(folder):
        return folder
    with report_cache_errors(folder.parent), hold_lock(folder.with_name(f".{key}.lock")):
        if not is_folder_intact(folder):
            # The partial folder has a fixed name, so that an incomplete one of a killed process is
            # deleted; the lock excludes other writers. An older folder exists if one of its files
            # was damaged.
            with write_folder_atomically(
                folder, replace=True, partial=f".{key}.partial"
            ) as partial:
                draw_dataset(
                    partial,
                    classes=classes,
                    lesions=lesions,
                    image_size=image_size,
                    seed=seed,
                    progress=progress,
                )
    return folder


def apportion_lesions(shares: Sequence[float], lesions: int) -> Iterator[int]:
    """Yield the class of each lesion, so that the first n lesions follow the shares for any n.

    Classes are indices into the shares, which are positive. This is Huntington and Hill's method,
    which apportions the seats of the US House: first one lesion for each class, then always one for
    the class with the greatest share / sqrt(n (n + 1)), if it has n lesions so far.
    """
    queue = [(-np.inf, label) for label in range(len(shares))]
    counts = [0] * len(shares)
    for _ in range(lesions):
        _, label = queue[0]
        yield label
        counts[label] += 1
        n = counts[label]
        heapq.heapreplace(queue, (-shares[label] / np.sqrt(n * (n + 1)), label))


def draw_lesion(
    row: LesionClass, index: int, image_size: int, seed: int
) -> tuple[str, list[NDArray[np.uint8]]]:
    """Draw all photographs of one lesion.

    The result is the source of the lesion, and one to four pictures: uint8, shape (image_size,
    image_size, 3).
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    camera = CAMERAS[rng.integers(len(CAMERAS))]
    number = 1 + rng.choice(len(_PHOTOGRAPHS), p=_PHOTOGRAPHS)
    patch = paint_patch(rng, sample_lesion(rng, row), image_size)
    return camera.name, [take_photograph(rng, patch, camera, image_size) for _ in range(number)]


def _check(classes: Sequence[str], lesions: int, image_size: int, seed: int) -> None:
    if len(classes) < 2 or len({normalise_class_name(name) for name in classes}) < len(classes):
        raise UserError(
            f"The synthetic dataset needs at least two classes, all different: {list(classes)}."
        )
    if lesions < len(classes):
        raise UserError(
            f"The synthetic dataset needs at least one lesion for each of its {len(classes)} "
            f"classes: {lesions} asked for."
        )
    if image_size < 16:
        raise UserError(f"Synthetic images are at least 16 pixels wide: {image_size} asked for.")
    if seed < 0:
        raise UserError(f"The seed of the synthetic dataset is not negative: {seed} given.")
