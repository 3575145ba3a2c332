"""The training split: the only thing that balancing and augmentation accept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingSplit:
    """The images that weights may be fitted to, as rows of the decode cache.

    Attributes:
        pixels: uint8, shape (cached images, height, width, 3); memory-mapped, read only. It holds
            every image of the dataset: only ``rows`` of it belong to this split.
        rows: int64, shape (n,); where each training image lies in ``pixels``. Two images with
            identical bytes share a row.
        labels: int64, shape (n,); class index, 0 <= label < n_classes.
        image_ids: n ids, sorted.
        digests: n SHA-256 hex digests of the files' bytes.
        class_names: the dataset's classes, in the order of their indices.
        metadata: float32, shape (n, d): what is known of each image's patient, encoded; None where
            the image alone counts.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    image_ids: tuple[str, ...]
    digests: tuple[str, ...]
    class_names: tuple[str, ...]
    metadata: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_classes(self) -> int:
        """Number of classes of the dataset, whether or not all of them occur here."""
        return len(self.class_names)

    def select_metadata(self, positions: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Metadata of some images, by their positions in the split, float32, shape (m, d)."""
        return None if self.metadata is None else self.metadata[positions]

    def class_counts(self) -> NDArray[np.int64]:
        """Images per class, int64, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)
