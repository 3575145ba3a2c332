"""The leaky protocol of the course project, reproduced on purpose: copy first, split afterwards.

Augmentor fills every class of the training folder up to 500 images, and only then are files drawn
at random for validation. Copies of one original are in both splits, so that validation accuracy
measures memorisation. This module writes a separate dataset whose manifest names the protocol; no
training on another dataset works this way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.files import write_folder_atomically
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.input_pipeline.augmentor import balance_with_augmentor, plan_copies
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit

PER_CLASS: Final = 500
OPERATIONS: Final = (
    {"rotate": {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}},
)
VAL_SHARE: Final = 0.2
#: Pillow's default, which Augmentor uses.
JPEG_QUALITY: Final = 75

PROTOCOL_COLUMNS = ("image_id", "label", "lesion", "source", "split", "protocol", "original")
#: Number of images in memory at a time.
_CHUNK = 256


def write_leaky_protocol(
    folder: Path,
    images: pd.DataFrame,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    seed: int,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> pd.DataFrame:
    """Create the dataset and write it atomically.

    Args:
        folder: folder to write, which must not exist.
        images: table of the n published images, with the columns image_id, label, group, source,
            published and digest.
        pixels: cached pixels, uint8, shape (m, size, size, 3).
        rows: int64, shape (n,): row of each image in ``pixels``.
        seed: seed that decides which originals are copied, how they are augmented, and which files
            are drawn for validation.

    Returns:
        The manifest with the columns ``PROTOCOL_COLUMNS``.
    """
    published = images["published"].to_numpy()
    train = np.flatnonzero(published == TRAIN)
    # The test images whose lesion is in no training image.
    leaks = images["group"].isin(set(images["group"].iloc[train]))
    test = np.flatnonzero((published == TEST) & ~leaks)
    classes = sorted(set(images["label"].iloc[train]))
    split = TrainingSplit(
        pixels=pixels,
        rows=rows[train],
        labels=np.searchsorted(classes, images["label"].iloc[train].astype(str)),
        image_ids=tuple(images["image_id"].iloc[train]),
        digests=tuple(images["digest"].iloc[train]),
        class_names=tuple(classes),
    )
    plan = plan_copies(split, PER_CLASS, seed)
    balanced = balance_with_augmentor(
        split,
        per_class=PER_CLASS,
        operations=OPERATIONS,
        seed=seed,
        cache_dir=cache,
        workers=threads,
        progress=progress,
    )
    origins = train[np.concatenate([plan.kept, plan.copied])]
    is_val = np.zeros(len(origins), bool)
    order = np.random.default_rng([seed, 0]).permutation(len(origins))
    is_val[order[: round(VAL_SHARE * len(origins))]] = True
    splits = [*np.where(is_val, VAL, TRAIN), *[TEST] * len(test)]
    manifest = _build_manifest(images.iloc[np.concatenate([origins, test])], splits)

    names = list(manifest["image_id"])
    with write_folder_atomically(folder) as partial:
        for start in range(0, len(origins), _CHUNK):
            chunk = np.arange(start, min(start + _CHUNK, len(origins)))
            _save(partial, [names[i] for i in chunk], balanced.gather(chunk)[0])
        for image_id, row in zip(names[len(origins) :], rows[test], strict=True):
            _save(partial, [image_id], pixels[row : row + 1])
        manifest.to_csv(partial / "manifest.csv", index=False)
    return manifest


def _build_manifest(origins: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Build the manifest: images are named after their originals, and copies numbered from 1."""
    n_copies: Counter[str] = Counter()
    names = []
    for image_id, label, split in zip(origins["image_id"], origins["label"], splits, strict=True):
        copy = f"_copy{n_copies[image_id]}" if n_copies[image_id] else ""
        n_copies[image_id] += 1
        names.append(f"{split}/{label}/{PurePosixPath(image_id).stem}{copy}.jpg")
    manifest = pd.DataFrame(
        {
            "image_id": names,
            "label": origins["label"].to_numpy(),
            "lesion": origins["group"].to_numpy(),
            "source": origins["source"].to_numpy(),
            "split": splits,
            "protocol": "leaking",
            "original": origins["image_id"].to_numpy(),
        }
    )
    return manifest.loc[:, list(PROTOCOL_COLUMNS)]


def _save(folder: Path, image_ids: Sequence[str], pixels: NDArray[np.uint8]) -> None:
    for image_id, picture in zip(image_ids, pixels, strict=True):
        path = folder / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, "JPEG", quality=JPEG_QUALITY)
