"""The training split, the only data that balancing and augmentation accept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingSplit:
    """The images that weights may be fitted to, as rows of the cached pixels.

    Attributes:
        pixels: uint8, shape (cached images, height, width, 3); memory-mapped and read-only. It
            contains all images of the dataset; only ``rows`` of it belong to this split.
        rows: int64, shape (n,): row of each training image in ``pixels``. Images with identical
            bytes share a row.
        labels: int64, shape (n,): class indices, 0 <= label < n_classes.
        image_ids: n ids, sorted.
        digests: SHA-256 of the n files, hexadecimal.
        class_names: classes of the dataset, in the order of their indices.
        metadata: float32, shape (n, d): encoded patient metadata; None if they are not used.
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
        """Number of classes of the dataset, including those without training images."""
        return len(self.class_names)

    def select_metadata(self, positions: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return the metadata of images by their positions in the split; float32, shape (m, d)."""
        return None if self.metadata is None else self.metadata[positions]

    def class_counts(self) -> NDArray[np.int64]:
        """Count the images of each class; int64, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)
