"""The training split, the only thing that balancing accepts, and what balancing makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, eq=False)
class BalancedSet:
    """The training images after balancing, as rows of one or more arrays.

    The arrays are never joined in memory; ``rows`` numbers their rows as if they were.

    Attributes:
        sources: arrays of pixels, uint8, each of shape (stored images, height, width, 3): the
            cached originals, and copies if the strategy makes some; or features of a frozen
            backbone, float32, shape (stored images, d). Memory-mapped and read-only.
        rows: int64, shape (m,): row of each image in the concatenation of ``sources``. Rows may
            repeat.
        labels: int64, shape (m,): class indices, 0 <= label < n_classes.
        n_classes: number of classes of the dataset, including those without images.
        class_weight: float32, shape (n_classes,): factor on the loss of each class's images; None
            if all images have the same weight.
        metadata: float32, shape (m, d): encoded patient metadata, for a copy those of its original;
            None if they are not used.
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
        """Count the images of each class after balancing; int64, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def gather(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Copy the images of a batch into memory; return them and their labels, int64, shape (b,).

        The indices, int64, shape (b,), 0 <= index < m, are in any order and may repeat. Images have
        the sources' dtype and the shape (b, height, width, 3) for pixels, (b, d) for features.
        """
        rows = self.rows[indices]
        images = np.empty((len(rows), *self.sources[0].shape[1:]), self.sources[0].dtype)
        start = 0
        for source in self.sources:
            here = np.flatnonzero((rows >= start) & (rows < start + len(source)))
            for position in here:  # one memory copy for each image; fancy indexing makes two
                images[position] = source[rows[position] - start]
            start += len(source)
        return images, self.labels[indices]


def make_generator(seed: int, purpose: str, class_index: int) -> np.random.Generator:
    """Make an independent random generator for one purpose, such as oversample, and one class.

    The numbers for a class therefore do not depend on the number of images of other classes.
    """
    tag = int.from_bytes(purpose.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, tag, class_index]))
