"""Cache of a frozen backbone's features, which are computed once for all later runs.

If nothing changes an image before a frozen backbone, the backbone computes the same numbers in
every epoch, arm and sweep. They are cached under a digest of everything that they depend on: the
images, their size, how they were made square, the backbone's weights, and the environment.
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
from melanoma_lab.config.schema.training import FrozenStart
from melanoma_lab.core.checksummed_files import load_or_compute, open_array, write_array
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.training.hardware import require_device_count

#: Batch size for computing features. It is fixed, because it may change the last bits.
AT_ONCE = 64


@dataclass(frozen=True)
class CachedFeatures:
    """The cached outputs of a frozen backbone.

    Attributes:
        values: float32, shape (m, d): one row of features for each image, memory-mapped and
            read-only.
        pixel_rows: int64, shape (m,), sorted: for each row of ``values``, the row of the dataset's
            pixels that it was computed from.
    """

    values: NDArray[np.float32]
    pixel_rows: NDArray[np.int64]

    def rows(self, pixel_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of ``values`` that belong to rows of the pixels; int64, shape (n,)."""
        return np.searchsorted(self.pixel_rows, pixel_rows).astype(np.int64)

    def of(self, images: BalancedSet) -> BalancedSet:
        """Return the same balanced training split with features instead of pixels."""
        return replace(images, sources=(self.values,), rows=self.rows(images.rows))


def why_not_cacheable(config: Config, images: BalancedSet) -> str | None:
    """Explain why a frozen backbone's features cannot be cached; None if they can or need not."""
    if not isinstance(config.finetuning, FrozenStart) or not config.finetuning.cache_features:
        return None
    if config.augmentation.name != "none":
        reason = f"augmentation={config.augmentation.name} changes images in every step"
    elif len(images.sources) > 1:
        reason = f"balancing={config.balancing.name} creates new images"
    elif require_device_count(config.training) > 1:
        reason = f"training.devices={config.training.devices} share every batch"
    else:
        return None
    return f"The features of the frozen backbone are computed in every epoch: {reason}."


def is_cacheable(config: Config, images: BalancedSet) -> bool:
    """Return whether the features of a frozen backbone are computed once and cached."""
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
    environment: Mapping[str, str],
    progress: ProgressCallback | None = None,
) -> CachedFeatures:
    """Load the features of a dataset's images from the cache; compute them first if necessary.

    If several processes need the same features, one computes them and the others wait.

    Args:
        backbone: Keras model from pixels to features, shape (n, d).
        splits: splits whose images are needed; None: all. No other image is given to the backbone.
        environment: result of ``melanoma_lab.training.environment.describe_environment``.

    Raises:
        UserError: the backbone's output for an image is not one row of features.
        RunError: the cache cannot be written.
    """
    if len(backbone.output_shape) != 2:
        raise UserError(
            "finetuning.cache_features=true: the backbone returns features of shape "
            f"{tuple(backbone.output_shape[1:])}; expected one row for each image. End it with a "
            "GlobalAveragePooling2D or Flatten layer."
        )
    positions = data.select_splits(splits)
    pixel_rows, first = np.unique(data.rows[positions], return_index=True)
    first = positions[first]
    digests = data.manifest["digest"].to_numpy()[first]
    width = int(backbone.output_shape[-1])
    key = hashlib.sha256()
    key.update(
        json.dumps(
            [
                dict(environment),
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
    # Cache files hold bytes, and a float32 takes four.
    shape = (len(pixel_rows), 4 * width)

    def compute() -> None:
        batches = make_evaluation_batches(
            data.pixels, pixel_rows, data.labels[first], n_classes=len(data.classes),
            batch_size=AT_ONCE,
        )  # fmt: skip
        with write_array(path, shape) as file:
            done = 0
            for pixels, _, _ in batches:
                features = np.asarray(backbone.predict_on_batch(pixels)).astype("<f4")
                file.write(done, features.view(np.uint8))
                done += len(features)
                if progress:
                    progress(done, len(pixel_rows))

    found = load_or_compute(path, lambda: open_array(path, shape), compute)
    return CachedFeatures(found.view("<f4"), pixel_rows)
