"""Fingerprints of images, robust to flips, rotations, re-encoding and changes of brightness.

Two kinds of features describe an image, both computed from a 32 x 32 reduction of it:

* **Circular harmonics.** Around the centre, on rings whose radii grow by a constant factor, the
  colour is a function of the angle and hence a Fourier series. Rotating the image multiplies the
  coefficient of order m by exp(-i m angle), mirroring conjugates it, scaling by the constant
  factor moves it to the next ring (the Fourier-Mellin idea; Reddy and Chatterji, IEEE
  Transactions on Image Processing 5(8), 1996). Magnitudes are therefore independent of rotations
  and flips, and the phases show later which rotation or flip maps one image to the other.
* **Spectrum rings.** The magnitude of the two-dimensional Fourier transform is independent of
  shifts, so an image that lost a border on one side only is still recognised. Its logarithm is
  described by the same harmonics, of even order because the spectrum of a real image is symmetric.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from melanoma_lab.core.console import ProgressCallback

#: Smallest side of images in pixels; features are computed from a reduction to this side.
MIN_SIDE = 32
#: Side of the grey thumbnail in pixels (the image's own side if that is smaller).
THUMBNAIL = 64
#: Factor between the radii of neighbouring rings.
SCALE_STEP = 1.2
N_RINGS = 10
MAX_ORDER = 8

_OUTERMOST = 0.95  # of half the side; beyond it a ring would leave the image
_SPECTRUM_RADII = (1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0)  # in cycles per image
_SPECTRUM_ORDERS = (0, 2, 4, 6)
_BLOCK = 256


@dataclass(frozen=True)
class Fingerprints:
    """Features and thumbnails of n images, about 7 KB each.

    Attributes:
        features: (n, d) float32, unchanged (up to rounding) by flips and quarter turns, and nearly
            unchanged by small rotations, crops and changes of brightness.
        harmonics: (n, 3, MAX_ORDER, N_RINGS) complex64, orders 1 to MAX_ORDER per colour channel.
        thumbnails: (n, t, t) uint8, grey levels; t is THUMBNAIL, or the images' side if smaller.
    """

    features: NDArray[np.float32]
    harmonics: NDArray[np.complex64]
    thumbnails: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.features)

    def take(self, indices: NDArray[np.intp]) -> Fingerprints:
        """Return the fingerprints of the given images, in the given order."""
        return Fingerprints(
            self.features[indices], self.harmonics[indices], self.thumbnails[indices]
        )


def compute_fingerprints(
    images: NDArray[np.uint8],
    executor: Executor | None = None,
    progress: ProgressCallback | None = None,
) -> Fingerprints:
    """Compute fingerprints that flips, rotations and changes of brightness (nearly) preserve.

    Args:
        images: (n, s, s, 3) uint8, s at least 32; a memory map is read block by block.
        executor: Executor whose threads share the blocks; None: one thread.

    Raises:
        ValueError: If the array has another shape or type.
    """
    check_images(images)
    n, side = len(images), min(THUMBNAIL, images.shape[1])
    n_features = _describe_block(np.zeros((1, *images.shape[1:]), np.uint8)).features.shape[1]
    # The arrays are filled in place; concatenating the parts would need twice the memory.
    prints = Fingerprints(
        features=np.empty((n, n_features), np.float32),
        harmonics=np.empty((n, 3, MAX_ORDER, N_RINGS), np.complex64),
        thumbnails=np.empty((n, side, side), np.uint8),
    )

    def fill(start: int) -> None:
        block = slice(start, start + _BLOCK)
        part = _describe_block(np.asarray(images[block]))
        prints.features[block] = part.features
        prints.harmonics[block] = part.harmonics
        prints.thumbnails[block] = part.thumbnails

    starts = range(0, n, _BLOCK)
    for start, _ in zip(starts, (executor.map if executor else map)(fill, starts), strict=True):
        if progress:
            progress(min(start + _BLOCK, n), n)
    return prints


def check_images(images: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the array is (n, s, s, 3) uint8 with s of at least 32."""
    shape = images.shape
    square = len(shape) == 4 and shape[1] == shape[2] >= MIN_SIDE and shape[3] == 3
    if not square or images.dtype != np.uint8:
        raise ValueError(
            f"Expected images of shape (n, s, s, 3) with s >= {MIN_SIDE} and dtype uint8. "
            f"Received shape {shape} and dtype {images.dtype}."
        )


def reduce_size(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Reduce (n, s, s) square planes to a smaller side in pixels by averaging areas."""
    if planes.shape[-1] == size:
        return planes
    weights = _area_weights(planes.shape[-1], size)
    reduced: NDArray[np.float32] = np.matmul(np.matmul(weights, planes), weights.T)
    return reduced


def _describe_block(images: NDArray[np.uint8]) -> Fingerprints:
    n = len(images)
    colours = _reduce_colours(images, min(THUMBNAIL, images.shape[1]))
    planes = reduce_size(colours, MIN_SIDE)
    means, spread, standard = _standardise(planes)
    flat = standard.reshape(n * 3, -1)
    real, imaginary = _ring_basis()
    coefficients = ((flat @ real) + 1j * (flat @ imaginary)).reshape(n, 3, MAX_ORDER + 1, N_RINGS)
    harmonics = coefficients[:, :, 1:].astype(np.complex64)
    # The factors only bring the groups of features to a similar size; the projection learnt from
    # the images (see candidates.py) decides which features count.
    features = np.concatenate(
        [
            0.5 * coefficients[:, :, 0].real.reshape(n, -1),
            3.0 * np.log((means[:, 1:] + 5.0) / (means[:, :1] + 5.0)),
            np.log(spread + 2.0),
            np.abs(harmonics).reshape(n, -1),
            _spectrum_features(standard),
        ],
        axis=1,
    ).astype(np.float32)
    return Fingerprints(features, harmonics, np.rint(colours.mean(axis=1)).astype(np.uint8))


def _reduce_colours(images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Average (n, s, s, 3) images over areas: (n, 3, size, size)."""
    n, side = images.shape[:2]
    weights = _area_weights(side, size)
    rows = np.matmul(weights, images.reshape(n, side, side * 3).astype(np.float32))
    columns = rows.reshape(n, size, side, 3).transpose(0, 3, 1, 2)
    reduced: NDArray[np.float32] = np.matmul(columns, weights.T)
    return reduced


def _standardise(
    planes: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Subtract each channel's mean and divide by the common spread, both near the centre.

    This removes brightness and contrast, but keeps the ratios between the channels.
    """
    x, y = _grid(MIN_SIDE)
    window = np.exp(-0.5 * (x**2 + y**2) / 0.6**2)
    window = (window / window.sum()).astype(np.float32)
    means = np.einsum("ncyx,yx->nc", planes, window)
    centred = planes - means[:, :, None, None]
    spread = np.sqrt(np.einsum("ncyx,ncyx,yx->n", centred, centred, window) / 3)[:, None]
    return means, spread, centred / (spread[:, :, None, None] + 2.0)


def _spectrum_features(standard: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute features of the log-magnitude spectra of grey and of red minus blue."""
    n = len(standard)
    taper = np.hanning(MIN_SIDE + 2)[1:-1]
    window = np.outer(taper, taper).astype(np.float32)
    signals = np.stack([standard.mean(axis=1), standard[:, 0] - standard[:, 2]], axis=1)
    magnitude = np.log(np.abs(scipy.fft.rfft2(signals * window)) + 0.5).reshape(n * 2, -1)
    real, imaginary = _spectrum_basis()
    rings: NDArray[np.float32] = np.hypot(magnitude @ real, magnitude @ imaginary)
    return rings.reshape(n, -1)


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the pixel centres, from -1 to 1 across the image."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=16)
def _area_weights(side: int, size: int) -> NDArray[np.float32]:
    """Return the (size, side) matrix that averages over areas."""
    edges = np.linspace(0, side, size + 1)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = np.clip(overlap, 0, None)
    weights: NDArray[np.float32] = overlap / overlap.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


@lru_cache(maxsize=1)
def _ring_basis() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the circular harmonics as columns, order by order, inner ring first."""
    x, y = _grid(MIN_SIDE)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    columns = []
    for order in range(MAX_ORDER + 1):
        for ring in range(N_RINGS - 1, -1, -1):
            centre = _OUTERMOST * SCALE_STEP**-ring
            profile = np.exp(-0.5 * (np.log(radius / centre) / np.log(SCALE_STEP)) ** 2) / radius
            profile /= np.sqrt((profile**2).sum())
            columns.append((profile * np.exp(-1j * order * angle)).ravel())
    return _as_columns(columns)


@lru_cache(maxsize=1)
def _spectrum_basis() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return harmonics on rings in the half-plane of rfft2's frequencies, as columns."""
    fy = np.fft.fftfreq(MIN_SIDE, 1 / MIN_SIDE)[:, None]
    fx = np.fft.rfftfreq(MIN_SIDE, 1 / MIN_SIDE)[None, :]
    frequency, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    # rfft2 omits the mirror image of all frequencies but those on the two edges of the half-plane.
    multiplicity = np.where((fx == 0) | (fx == MIN_SIDE // 2), 1.0, 2.0)
    columns = []
    for centre in _SPECTRUM_RADII:
        profile = np.exp(-0.5 * ((frequency - centre) / (0.35 * centre)) ** 2) * multiplicity
        profile[0, 0] = 0.0
        profile /= profile.sum()
        columns += [(profile * np.exp(-1j * m * angle)).ravel() for m in _SPECTRUM_ORDERS]
    return _as_columns(columns)


def _as_columns(
    columns: list[NDArray[np.complex128]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    matrix = np.stack(columns, axis=1)
    return matrix.real.astype(np.float32), matrix.imag.astype(np.float32)


_IMAGES_AT_ONCE = 1024


class DistinctImages:
    """A set of images with their digests and fingerprints.

    Args:
        images: (n, s, s, 3) uint8.

    Attributes:
        members: Digest of the pixels -> indices of the images with this digest.
        digests: All digests, sorted.
        distinct: (d,) index of one image of each digest, in the order of the digests, so that
            results do not depend on the order of the images.
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
