"""Small training splits, memory-mapped as the decode cache is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from melanoma_lab.input_pipeline.balanced_set import TrainingSplit

MakeSplit = Callable[..., TrainingSplit]


@pytest.fixture
def make_split(tmp_path: Path) -> MakeSplit:
    """Build a split with so many images per class; noise, so that no two look alike."""

    def make(
        counts: Sequence[int], size: tuple[int, int] = (12, 16), seed: int = 0
    ) -> TrainingSplit:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        n = len(labels)
        # The cache also holds images of other splits: every other row.
        pixels = rng.integers(0, 256, (2 * n, *size, 3), np.uint8)
        path = tmp_path / f"decoded-{seed}-{n}-{size}.npy"
        np.save(path, pixels)
        return TrainingSplit(
            pixels=np.load(path, mmap_mode="r"),
            rows=rng.permutation(n) * 2 + 1,
            labels=labels,
            image_ids=tuple(f"{i:04}.jpg" for i in range(n)),
            digests=tuple(hashlib.sha256(f"{seed}/{i}".encode()).hexdigest() for i in range(n)),
            class_names=tuple(f"class {i}" for i in range(len(counts))),
        )

    return make
