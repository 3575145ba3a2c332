"""The course project's protocol, on purpose: copies first, split afterwards.

Every class of the training folder is brought to 500 images with Augmentor, and only then are files
drawn at random for validation. Copies of one original end up on both sides, so that validation
accuracy measures memory. What is made here is a dataset of its own whose manifest says so; nothing
in the lab trains this way on an honest one.
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

from melanoma_lab.core.atomic_files import write_folder_atomically
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.input_pipeline.balancing.augmentor import balance_with_augmentor, plan_copies
from melanoma_lab.input_pipeline.training_split import TrainingSplit

PER_CLASS: Final = 500
OPERATIONS: Final = (
    {"rotate": {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}},
)
VAL_SHARE: Final = 0.2
#: Pillow's, which Augmentor leaves as it is.
JPEG_QUALITY: Final = 75

PROTOCOL_COLUMNS = ("image_id", "label", "lesion", "source", "split", "protocol", "original")
_GATHERED = 256


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
    """Make the dataset and write it, whole or not at all.

    Args:
        folder: to write to; must not exist.
        images: the published images, n rows with the columns image_id, label, group, source,
            published and digest.
        pixels: the decode cache, uint8, shape (m, size, size, 3).
        rows: int64, shape (n,); where each image lies in ``pixels``.
        seed: which originals are copied and how, and which files are drawn for validation.
        cache: the lab's cache folder.
        threads: for making the copies.
        progress: told of the copies made so far and the copies to make.

    Returns:
        The manifest, with COLUMNS.
    """
    published = images["published"].to_numpy()
    train, test = np.flatnonzero(published == TRAIN), _find_unleaked_test(images)
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
    manifest = _manifest(images.iloc[np.concatenate([origins, test])], splits)

    names = list(manifest["image_id"])
    with write_folder_atomically(folder) as partial:
        for start in range(0, len(origins), _GATHERED):
            chunk = np.arange(start, min(start + _GATHERED, len(origins)))
            _save(partial, [names[i] for i in chunk], balanced.gather(chunk)[0])
        for image_id, row in zip(names[len(origins) :], rows[test], strict=True):
            _save(partial, [image_id], pixels[row : row + 1])
        manifest.to_csv(partial / "manifest.csv", index=False)
    return manifest


def _find_unleaked_test(images: pd.DataFrame) -> NDArray[np.int64]:
    """Positions of the published test images of which no training image shows the lesion."""
    trained = set(images.loc[images["published"] == TRAIN, "group"])
    honest = (images["published"] == TEST) & ~images["group"].isin(trained)
    return np.flatnonzero(honest)


def _manifest(origins: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Name every image after its original, its copies numbered from 1."""
    seen: Counter[str] = Counter()
    names = []
    for image_id, label, split in zip(origins["image_id"], origins["label"], splits, strict=True):
        copy = f"_copy{seen[image_id]}" if seen[image_id] else ""
        seen[image_id] += 1
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
