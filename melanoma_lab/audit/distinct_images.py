"""A set of images of which identical ones are described once."""

from __future__ import annotations

from concurrent.futures import Executor
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.audit.descriptors import compute_fingerprints
from melanoma_lab.core.console import ProgressCallback

_IMAGES_AT_ONCE = 1024


class DistinctImages:
    """A set of images with their digests and fingerprints.

    Args:
        images: (n, s, s, 3) uint8.
        pool: Its threads share the work.
        progress: Called with (done, total) while images are described.

    Attributes:
        images: As given.
        members: Digest of the pixels -> indices of the images that have it.
        digests: Sorted.
        distinct: (d,) the index of one image of each digest, in the order of the digests and not
            of the images, so that nothing that is computed from it depends on the images' order.
        fingerprints: Of all n images.
    """

    def __init__(
        self, images: NDArray[np.uint8], pool: Executor, progress: ProgressCallback | None = None
    ) -> None:
        self.images = images
        starts = range(0, len(images), _IMAGES_AT_ONCE)
        blocks = pool.map(lambda start: _digests(images[start : start + _IMAGES_AT_ONCE]), starts)
        self.members: dict[bytes, list[int]] = {}
        for index, digest in enumerate(digest for block in blocks for digest in block):
            self.members.setdefault(digest, []).append(index)
        self.digests = sorted(self.members)
        self.distinct = np.array([self.members[digest][0] for digest in self.digests], np.intp)
        self.fingerprints = compute_fingerprints(images, pool, progress)


def _digests(images: NDArray[np.uint8]) -> list[bytes]:
    return [
        blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
        for image in np.asarray(images)
    ]
