"""The features of a frozen backbone, computed once for every later run.

Where nothing changes an image before a frozen backbone, it computes the same numbers in every
epoch, arm and sweep. They are kept in the cache under a digest of all that they depend on: the
images, how they became squares, their size, the backbone's weights, and what the bits of any
computation here depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.finetuning import FrozenStart
from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.training.hardware import require_device_count

#: Images that are computed at once, whatever the batch of the training: it may change last bits.
AT_ONCE = 64


@dataclass(frozen=True)
class CachedFeatures:
    """What a backbone makes of the images of a dataset.

    Attributes:
        values: float32, shape (m, d), memory-mapped and read only.
        pixel_rows: int64, shape (m,), sorted: which row of the pixels each is of.
    """

    values: NDArray[np.float32]
    pixel_rows: NDArray[np.int64]

    def rows(self, pixel_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the features of some rows of the pixels lie."""
        return np.searchsorted(self.pixel_rows, pixel_rows).astype(np.int64)

    def of(self, images: BalancedSet) -> BalancedSet:
        """The same draws with features for pixels."""
        return replace(images, sources=(self.values,), rows=self.rows(images.rows))


def why_not_cacheable(config: Config, images: BalancedSet) -> str | None:
    """Why the features of a frozen backbone cannot be kept, in a sentence; None: they can.

    Args:
        config: the whole configuration.
        images: what balancing made of the training split.
    """
    if not isinstance(config.finetuning, FrozenStart) or not config.finetuning.cache_features:
        return None
    reason = None
    if config.augmentation.name != "none":
        reason = f"augmentation={config.augmentation.name} changes images in every step"
    elif len(images.sources) > 1:
        reason = f"balancing={config.balancing.name} makes images of its own"
    elif require_device_count(config.training) > 1:
        reason = f"training.devices={config.training.devices} share every batch"
    if reason is None:
        return None
    return f"The features of the frozen backbone are computed in every epoch: {reason}."


def is_cacheable(config: Config, images: BalancedSet) -> bool:
    """Whether the features of a frozen backbone are computed once and kept."""
    finetuning = config.finetuning
    return (
        isinstance(finetuning, FrozenStart)
        and finetuning.cache_features
        and why_not_cacheable(config, images) is None
    )


def load_or_compute_features(
    backbone: Any,
    data: PreparedData,
    *,
    splits: Sequence[str] | None = None,
    cache: Path,
    circumstances: Mapping[str, str],
    progress: ProgressCallback | None = None,
) -> CachedFeatures:
    """The features of a dataset's images, computed first where the cache has none.

    Two processes may compute the same at once: each writes a file of its own, and the last to
    finish puts its own, identical one in place.

    Args:
        backbone: a Keras model from pixels to features, shape (n, d).
        data: the split dataset.
        splits: those whose images are wanted; None: all. The backbone meets no others.
        cache: the lab's cache folder.
        circumstances: as ``melanoma_lab.training.environment`` gives them.
        progress: called with (done, total) while they are computed.

    Raises:
        UserError: the backbone gives an image more than one row of features.
        RunError: the cache cannot be written.
    """
    if len(backbone.output_shape) != 2:
        raise UserError(
            f"finetuning.cache_features=true: the backbone gives features of shape "
            f"{tuple(backbone.output_shape[1:])}; expected a row of an image. End it with a "
            "GlobalAveragePooling2D or Flatten layer."
        )
    wanted = data.select_splits(splits)
    pixel_rows, first = np.unique(data.rows[wanted], return_index=True)
    first = wanted[first]
    digests = data.manifest["digest"].to_numpy()[first]
    width = int(backbone.output_shape[-1])
    key = hashlib.sha256()
    key.update(
        json.dumps(
            [
                dict(circumstances),
                backbone.compute_dtype,
                DECODING_VERSION,
                data.pixels.shape[1:],
                data.resize,
                list(digests),
                backbone.to_json(),
            ]
        ).encode()
    )
    for weight in backbone.get_weights():
        key.update(np.ascontiguousarray(weight).tobytes())
    path = cache / "features" / f"{key.hexdigest()[:32]}.npy"
    # The cache's files are of bytes; these are four for every number.
    shape = (len(pixel_rows), 4 * width)

    def compute() -> None:
        batches = make_evaluation_batches(
            data.pixels, pixel_rows, data.labels[first], n_classes=len(data.classes),
            batch_size=AT_ONCE,
        )  # fmt: skip
        with write_array(path, shape) as file:
            done = 0
            for pixels, _, _ in batches:
                made = np.asarray(backbone.predict_on_batch(pixels)).astype("<f4")
                file.write(done, made.view(np.uint8))
                done += len(made)
                if progress:
                    progress(done, len(pixel_rows))

    found = load_or_compute(path, lambda: open_array(path, shape), compute)
    return CachedFeatures(found.view("<f4"), pixel_rows)
