"""Align two images and measure whether their fine details agree.

Photographs of different round brown spots agree in all coarse structure; hairs, pores and the
lesion's texture agree only in copies of one photograph. Therefore a candidate pair is aligned and
compared by its details:

1. rotation, flip and scale are found from the circular harmonics, and, for images that were
   shifted by an uneven crop, by correlating each of the eight flips and quarter turns;
2. an affine transform is refined from coarse to fine by the inverse compositional algorithm of
   Baker and Matthews (Lucas-Kanade 20 years on, IJCV 56(3), 2004) on band-passed grey images,
   independent of gain and offset;
3. the score is the mean normalised cross-correlation of the details over small blocks, so that
   one strong edge (a ruler, the lens's rim) counts no more than any other block.

Coordinates: an image spans -1 to 1 in x and y; a transform is a (2, 3) matrix that maps
coordinates of the first image to those of the second. All functions work on p pairs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Final, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from melanoma_lab.audit.descriptors import SCALE_STEP

N_ANGLES: Final = 72
#: Number of blocks along each side of the image; details are compared within blocks.
N_BLOCKS: Final = 8

_Floats: TypeAlias = NDArray[np.float32]
_IDENTITY = np.eye(2, 3, dtype=np.float32)
_MIN_OVERLAP = 0.45  # copies that Augmentor rotates by +10 and -10 degrees still overlap more
_MIN_BLOCKS = 12  # of N_BLOCKS ** 2; fewer are not enough for a score
_RIM_GREY, _RIM_RADIUS = 40.0, 0.6  # pixels darker and farther out belong to the lens's rim


def similarity_transform(
    mirrored: NDArray[np.bool_], angle: NDArray[np.float64], scale: NDArray[np.float64]
) -> _Floats:
    """Build transforms, shape (p, 2, 3), that mirror (y to -y), rotate and scale.

    The three arguments have shape (p,); angles are in radians.
    """
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    sign = np.where(mirrored, -1.0, 1.0)
    transform = np.zeros((len(angle), 2, 3), np.float32)
    transform[:, 0, 0], transform[:, 0, 1] = cosine, -sine * sign
    transform[:, 1, 0], transform[:, 1, 1] = sine, cosine * sign
    return transform


def propose_turns(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> _Floats:
    """Find flip, rotation and scale from circular harmonics.

    Args:
        first: (p, c, orders, rings) complex64, harmonics of the first images, orders from 1 on.

    Returns:
        (p, 2, 3) transforms with the highest correlation.
    """
    n_pairs, _, n_orders, n_rings = first.shape
    angles = np.arange(N_ANGLES) * 2 * np.pi / N_ANGLES
    waves = np.exp(1j * np.arange(1, n_orders + 1)[:, None] * angles).astype(np.complex64)
    options = [(step, mirrored) for step in (-1, 0, 1) for mirrored in (False, True)]
    correlations = []
    for step, mirrored in options:
        a = first[..., max(0, step) : n_rings + min(0, step)].conj()
        b = second[..., max(0, -step) : n_rings + min(0, -step)]
        energy = np.sqrt(
            (np.abs(a) ** 2).sum(axis=(1, 2, 3)) * (np.abs(b) ** 2).sum(axis=(1, 2, 3))
        )
        b = b.conj() if mirrored else b
        cross = np.einsum("pcmr,pcmr->pm", a, b) @ waves
        correlations.append(cross.real / (energy[:, None] + 1e-6))
    best = np.stack(correlations, axis=1).reshape(n_pairs, -1).argmax(axis=1)
    option, angle = best // N_ANGLES, angles[best % N_ANGLES]
    mirrored_pairs = np.array([mirrored for _, mirrored in options])[option]
    steps = np.array([step for step, _ in options])[option]
    return similarity_transform(
        mirrored_pairs, np.where(mirrored_pairs, -angle, angle), SCALE_STEP**-steps
    )


def propose_shifts(first: _Floats, second: _Floats, scales: Sequence[float] = (1.0,)) -> _Floats:
    """Find the flip or quarter turn, the scale and the shift by cross-correlation.

    Args:
        first: (p, g, g) float32, the first images.
        scales: Scales to try; below 1 if the first image is a crop of the second.

    Returns:
        (p, 2, 3) transforms with the highest correlation: one of the eight flips and quarter
        turns, followed by a scaling and a shift.
    """
    n_pairs, size = first.shape[:2]
    taper = np.hanning(size + 2)[1:-1]
    window = np.outer(taper, taper).astype(np.float32)
    best_value = np.full(n_pairs, -np.inf, np.float32)
    best = np.zeros((n_pairs, 2, 3), np.float32)
    for scale in scales:
        # Both are compared at the scale of the image that shows the smaller area.
        template, moving = _magnify(first, 1 / scale), _magnify(second, scale)
        spectrum = scipy.fft.rfft2(moving * window)
        energy = _energy(template * window) * _energy(moving * window) + 1e-3
        for mirrored, quarter in product((False, True), range(4)):
            turned = np.rot90(template[:, ::-1] if mirrored else template, -quarter, axes=(1, 2))
            cross = scipy.fft.irfft2(
                scipy.fft.rfft2(turned * window).conj() * spectrum, (size, size)
            ).reshape(n_pairs, size**2)
            peak = cross.argmax(axis=1)
            value = cross[np.arange(n_pairs), peak] / energy
            turn = np.full(n_pairs, quarter * np.pi / 2)
            transform = similarity_transform(
                np.full(n_pairs, mirrored), turn, np.full(n_pairs, scale)
            )
            dy, dx = (peak // size + size // 2) % size, (peak % size + size // 2) % size
            shift = np.stack([dx, dy], axis=1) - size // 2
            transform[:, :, 2] = shift * (2 / size * min(scale, 1.0))
            better = value > best_value
            best_value[better] = value[better]
            best[better] = transform[better]
    return best


def band_pass(planes: _Floats, sigma: float) -> _Floats:
    """Subtract from each plane its Gaussian blur with standard deviation sigma, in pixels."""
    kernel = _gaussian(planes.shape[-1], sigma)
    band: _Floats = planes - np.matmul(np.matmul(kernel, planes), kernel.T)
    return band


def warp_planes(
    planes: _Floats, transform: _Floats, size: int
) -> tuple[_Floats, NDArray[np.bool_]]:
    """Sample planes at transformed coordinates by bilinear interpolation.

    Args:
        planes: (p, s, s) float32.
        transform: (p, 2, 3) transforms from output coordinates to those of the planes.
        size: Side of the output in pixels.

    Returns:
        (p, size * size) float32, and a mask of the pixels that lie inside the plane.
    """
    n_pairs, side, _ = planes.shape
    x, y = _flat_grid(size)
    px = transform[:, 0, 0, None] * x + transform[:, 0, 1, None] * y + transform[:, 0, 2, None]
    py = transform[:, 1, 0, None] * x + transform[:, 1, 1, None] * y + transform[:, 1, 2, None]
    px, py = (px + 1) * (side / 2) - 0.5, (py + 1) * (side / 2) - 0.5
    # Half a pixel of tolerance: the outermost half pixel is the border pixel repeated.
    inside = (np.abs(px - (side - 1) / 2) <= side / 2) & (np.abs(py - (side - 1) / 2) <= side / 2)
    np.clip(px, 0, side - 1.001, out=px)
    np.clip(py, 0, side - 1.001, out=py)
    column, row = px.astype(np.int32), py.astype(np.int32)
    px -= column
    py -= row
    index = row * side + column + (np.arange(n_pairs, dtype=np.int32) * side**2)[:, None]
    values = planes.ravel()
    top = values.take(index)
    top += (values.take(index + 1) - top) * px
    index += side
    bottom = values.take(index)
    bottom += (values.take(index + 1) - bottom) * px
    top += (bottom - top) * py
    return top, inside


def refine(
    first: _Floats, second: _Floats, transform: _Floats, n_iterations: int
) -> tuple[_Floats, _Floats]:
    """Improve affine transforms by inverse compositional Gauss-Newton steps.

    The image that shows the larger area is the template: steps converge from farther away if the
    template includes the surroundings of the other image.

    Args:
        first: (p, s, s) float32, the first images.
        transform: (p, 2, 3) initial transforms from first to second.

    Returns:
        The best transforms among all steps, from first to second; and their normalised
        cross-correlation over the overlap, shape (p,), -1 if the overlap was always too small.
    """
    swapped = np.abs(np.linalg.det(transform[:, :, :2])) < 1
    planes = swapped[:, None, None]
    transform = np.where(planes, invert(transform), transform)
    template, moving = np.where(planes, second, first), np.where(planes, first, second)
    best, correlation = _descend(template, moving, transform, n_iterations)
    return np.where(planes, invert(best), best), correlation


def _magnify(planes: _Floats, scale: float) -> _Floats:
    """Crop the middle of planes, `scale` of their side, and enlarge it; no crop if scale >= 1."""
    if scale >= 1:
        return planes
    n, size = planes.shape[:2]
    cut = similarity_transform(np.zeros(n, bool), np.zeros(n), np.full(n, scale))
    return warp_planes(planes, cut, size)[0].reshape(planes.shape)


def _energy(planes: _Floats) -> _Floats:
    """Return the root of each plane's sum of squares, shape (p,)."""
    energy: _Floats = np.sqrt(np.einsum("pyx,pyx->p", planes, planes))
    return energy


def invert(transform: _Floats) -> _Floats:
    """Invert (p, 2, 3) affine transforms."""
    return np.linalg.inv(_with_last_row(transform))[:, :2]


def _descend(
    first: _Floats, second: _Floats, transform: _Floats, n_iterations: int
) -> tuple[_Floats, _Floats]:
    """Do the Gauss-Newton steps of refine, with the first images as templates."""
    n_pairs, size, _ = first.shape
    x, y = _flat_grid(size)
    template = first.reshape(n_pairs, size**2)
    spread = template.std(axis=1)[:, None, None] + 1e-3
    dy, dx = np.gradient(first / spread, 2 / size, axis=(1, 2))
    dx, dy = dx.reshape(n_pairs, size**2), dy.reshape(n_pairs, size**2)
    steepest = np.stack([dx * x, dx * y, dx, dy * x, dy * y, dy], axis=1)
    hessian = np.matmul(steepest, steepest.transpose(0, 2, 1))
    damping = 1e-3 * np.trace(hessian, axis1=1, axis2=2) / 6 + 1e-3
    inverse = np.linalg.inv(hessian + damping[:, None, None] * np.eye(6, dtype=np.float32))
    best, best_correlation = transform.copy(), np.full(n_pairs, -1.0, np.float32)
    for iteration in range(n_iterations + 1):
        warped, inside = warp_planes(second, transform, size)
        weight = inside.astype(np.float32)
        overlap = weight.mean(axis=1)
        error = _standardised(warped, weight) - _standardised(template, weight)
        # Both are standardised, so the mean squared error is 2 - 2 correlation.
        squared = np.einsum("pn,pn->p", error, error)
        correlation = 1 - squared / (2 * size**2 * overlap + 1e-6)
        # Gauss-Newton may diverge on images with little detail, so the best step is kept.
        better = (correlation > best_correlation) & (overlap >= _MIN_OVERLAP)
        best[better], best_correlation[better] = transform[better], correlation[better]
        if iteration == n_iterations:
            break
        # The error is summed over the overlap only, but the Hessian over the whole template.
        step = np.matmul(inverse, np.matmul(steepest, error[:, :, None]))[:, :, 0]
        step /= np.maximum(overlap, _MIN_OVERLAP)[:, None]
        increment = step.reshape(n_pairs, 2, 3)
        increment[:, [0, 1], [0, 1]] += 1
        hopeless = ~(np.linalg.det(increment[:, :, :2]) > 0.1)
        increment[hopeless] = _IDENTITY
        transform = np.matmul(transform, _with_last_row(invert(increment)))
    return best, best_correlation


def score_detail_agreement(
    first: _Floats, second: _Floats, transform: _Floats, sigma: float
) -> _Floats:
    """Score how well the details of aligned images agree.

    Args:
        first: (p, s, s) float32, grey levels of the first images from 0 to 255.
        transform: (p, 2, 3) transforms that align the images.
        sigma: Standard deviation in pixels of the Gaussian blur that removes the details.

    Returns:
        (p,) float32: the mean over blocks of the normalised cross-correlation, weighted by the
        blocks' contrast up to 3 grey levels. About 0 for different photographs, 1 for identical
        ones, 0 if too few blocks have details to compare.
    """
    n_pairs, size, _ = first.shape
    details, inside = warp_planes(band_pass(second, sigma), transform, size)
    rim, _ = warp_planes(_rim(second), transform, size)
    keep = inside & (np.maximum(rim, _rim(first).reshape(n_pairs, size**2)) < 0.02)
    weight = _blocks(keep.astype(np.float32), size)
    a = _blocks(band_pass(first, sigma).reshape(n_pairs, size**2), size)
    b = _blocks(details, size)
    count = weight.sum(axis=2) + 1e-6
    a = (a - ((a * weight).sum(axis=2) / count)[..., None]) * weight
    b = (b - ((b * weight).sum(axis=2) / count)[..., None]) * weight
    variance_a, variance_b = (a * a).sum(axis=2) / count, (b * b).sum(axis=2) / count
    # Adding 0.01 squared grey levels avoids a division by zero in blocks without detail.
    correlation = (a * b).sum(axis=2) / count
    correlation /= np.sqrt((variance_a + 0.01) * (variance_b + 0.01))
    contrast = np.minimum((variance_a * variance_b) ** 0.25, 3.0)
    contrast[(count < 0.8 * weight.shape[2]) | (contrast < 0.3)] = 0.0
    total = contrast.sum(axis=1)
    enough = (contrast > 0).sum(axis=1) >= _MIN_BLOCKS
    score = np.where(enough, (correlation * contrast).sum(axis=1) / (total + 1e-6), 0.0)
    return score.astype(np.float32)


def _with_last_row(transform: _Floats) -> _Floats:
    square = np.zeros((len(transform), 3, 3), np.float32)
    square[:, :2], square[:, 2, 2] = transform, 1
    return square


def _rim(planes: _Floats) -> _Floats:
    """Mark dark pixels far from the centre, the lens's rim, and blur the mask."""
    size = planes.shape[-1]
    x, y = _flat_grid(size)
    outer = np.hypot(x, y).reshape(size, size) > _RIM_RADIUS
    dark = ((planes < _RIM_GREY) & outer).astype(np.float32)
    kernel = _gaussian(size, size / 32)
    blurred: _Floats = np.matmul(np.matmul(kernel, dark), kernel.T)
    return blurred


def _blocks(flat: _Floats, size: int) -> _Floats:
    side = size // N_BLOCKS
    used = side * N_BLOCKS
    n = len(flat)
    planes = flat.reshape(n, size, size)[:, :used, :used]
    blocks = planes.reshape(n, N_BLOCKS, side, N_BLOCKS, side).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(n, N_BLOCKS**2, side**2)


def _standardised(values: _Floats, weight: _Floats) -> _Floats:
    count = weight.sum(axis=1, keepdims=True) + 1e-6
    mean = np.einsum("pn,pn->p", values, weight)[:, None] / count
    centred = (values - mean) * weight
    variance = np.einsum("pn,pn->p", centred, centred)[:, None] / count
    standardised: _Floats = centred / (np.sqrt(variance) + np.float32(1e-3))
    return standardised


@lru_cache(maxsize=32)
def _gaussian(size: int, sigma: float) -> _Floats:
    """Return the (size, size) matrix of a Gaussian local linear regression along one axis.

    In the interior this is a Gaussian blur. At the border it reproduces a gradient exactly, unlike
    a truncated Gaussian, with which a gradient would add the same "detail" to all images' borders.
    """
    offset = np.arange(size) - np.arange(size)[:, None]
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    first = (kernel * offset).sum(axis=1, keepdims=True)
    second = (kernel * offset**2).sum(axis=1, keepdims=True)
    kernel *= second - offset * first
    weights: _Floats = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


@lru_cache(maxsize=16)
def _flat_grid(size: int) -> tuple[_Floats, _Floats]:
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    return np.tile(axis, size), np.repeat(axis, size)
