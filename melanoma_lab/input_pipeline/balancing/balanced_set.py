"""What balancing hands to the input pipeline: which pixels an epoch is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class BalancedSet:
    """The training images after balancing, as rows of one or more pixel stores.

    The stores are never joined in memory: ``rows`` counts through them as if they were.

    Attributes:
        sources: pixel stores, uint8, each of shape (stored images, height, width, 3): the decode
            cache, and the copies where the strategy makes some; or what a frozen backbone makes of
            them, float32, shape (stored images, d). Memory-mapped, read only.
        rows: int64, shape (m,); index into the concatenation of ``sources``. A row may repeat.
        labels: int64, shape (m,); class index, 0 <= label < n_classes.
        n_classes: number of classes of the dataset, whether or not all of them occur.
        class_weight: float32, shape (n_classes,): factor on the loss of an image of each class;
            None where every image counts the same.
        metadata: float32, shape (m, d): what is known of the patient, encoded; a copy's are its
            original's. None where the image alone counts.
    """

    sources: tuple[NDArray[np.uint8] | NDArray[np.float32], ...]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    n_classes: int
    class_weight: NDArray[np.float32] | None = None
    metadata: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {source.shape[1:] for source in self.sources}
        kinds = {(str(source.dtype), source.ndim) for source in self.sources}
        if len(shapes) != 1 or not kinds <= {("uint8", 4), ("float32", 2)}:
            received = [(source.shape, str(source.dtype)) for source in self.sources]
            raise ValueError(
                "Expected sources of one shape (height, width, 3) and uint8, or of one length and "
                f"float32. Received {received}"
            )
        if self.rows.ndim != 1 or self.rows.shape != self.labels.shape:
            raise ValueError(
                "Expected as many labels as rows, shape (m,). "
                f"Received rows {self.rows.shape}, labels {self.labels.shape}"
            )
        if self.metadata is not None and len(self.metadata) != len(self.rows):
            raise ValueError(
                f"Expected metadata of {len(self.rows)} images. Received {len(self.metadata)}"
            )
        stored = sum(map(len, self.sources))
        if len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < stored:
            raise ValueError(
                f"Expected rows from 0 to {stored - 1}. "
                f"Received {self.rows.min()} to {self.rows.max()}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def class_counts(self) -> NDArray[np.int64]:
        """Images per class after balancing, int64, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def gather(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Copy some images into memory: one batch.

        Args:
            indices: int64, shape (b,); 0 <= index < m, in any order, with or without repeats.

        Returns:
            images, of the sources' dtype and shape, (b, height, width, 3) if pixels, and their
            labels, int64, shape (b,).
        """
        rows = self.rows[indices]
        images = np.empty((len(rows), *self.sources[0].shape[1:]), self.sources[0].dtype)
        start = 0
        for source in self.sources:
            here = np.flatnonzero((rows >= start) & (rows < start + len(source)))
            for position in here:  # one memory copy an image; fancy indexing would make two
                images[position] = source[rows[position] - start]
            start += len(source)
        return images, self.labels[indices]
