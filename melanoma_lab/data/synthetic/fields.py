"""Random fields and masks for the pictures: float64 arrays, square unless stated otherwise.

Lengths are fractions of the field's width, so that a picture looks the same at every size. All
arrays are float64, so that a last-bit difference between two CPUs almost never changes an 8-bit
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Field = NDArray[np.float64]

_SUPERSAMPLING = 3


def smooth_step(x: Field, softness: float) -> Field:
    """Compute a smooth step: 0 for ``x`` far below zero, 1 for ``x`` far above."""
    return np.asarray(0.5 + 0.5 * np.tanh(x / softness))


def pixel_coordinates(size: int) -> tuple[Field, Field]:
    """Return the pixels' x, shape (1, size), and y, shape (size, 1), from -0.5 to 0.5."""
    line = (np.arange(size) + 0.5) / size - 0.5
    return line[np.newaxis, :], line[:, np.newaxis]


def gaussian_blur(field: Field, scale: float) -> Field:
    """Blur a field by a Gaussian of standard deviation ``scale``; its edges wrap around."""
    size = field.shape[0]
    spectrum = ndimage.fourier_gaussian(np.fft.rfft2(field), sigma=scale * size, n=size)
    return np.fft.irfft2(spectrum, s=field.shape)


def clouds(rng: np.random.Generator, size: int, scale: float) -> Field:
    """Draw smooth noise of mean 0 and variance 1, whose patches are about ``scale`` wide."""
    noise = gaussian_blur(rng.standard_normal((size, size)), scale)
    return np.asarray((noise - noise.mean()) / noise.std())


def dots(rng: np.random.Generator, size: int, number: float, radius: float) -> Field:
    """Draw soft round dots at random places, on average ``number``: 1 inside a dot, else 0."""
    impulses = (rng.random((size, size)) < number / size**2).astype(np.float64)
    peak = 1 / (2 * np.pi * (radius * size) ** 2)
    return smooth_step(gaussian_blur(impulses, radius) / peak - 0.6, softness=0.2)


def net(rng: np.random.Generator, size: int, mesh: float) -> Field:
    """Draw a net of thin lines (1) around holes (0) about ``mesh`` wide.

    The lines are the zero crossings of band-limited noise.
    """
    noise = gaussian_blur(rng.standard_normal((size, size)), 0.35 * mesh)
    band = noise - gaussian_blur(noise, 0.6 * mesh)
    return np.asarray(np.exp(-((band / (0.45 * band.std())) ** 2)))


def draw_strokes(size: int, lines: Sequence[Field], width: float) -> Field:
    """Draw polylines with a round pen: 1 on a line, else 0.

    Args:
        size: width of the field in pixels.
        lines: points of each line, shape (points, 2): x and y, from -0.5 to 0.5 inside the field.
        width: width of the pen.
    """
    large = size * _SUPERSAMPLING
    picture = Image.new("L", (large, large))
    pen = ImageDraw.Draw(picture)
    for line in lines:
        pixels = [(float(x), float(y)) for x, y in (line + 0.5) * large]
        pen.line(pixels, fill=255, width=max(1, round(width * large)), joint="curve")
    small = picture.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


def draw_curve(
    rng: np.random.Generator, start: Field, angle: float, length: float, bend: float
) -> Field:
    """Draw the points of a randomly bent line, shape (12, 2).

    Args:
        rng: source of random numbers.
        start: first point of the line, shape (2,).
        angle: first direction of the line, in radians.
        length: length of the line.
        bend: standard deviation of the change of direction over the whole line, in radians.
    """
    angles = angle + np.cumsum(rng.normal(0, bend / np.sqrt(11), 11))
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / 11)
    return np.concatenate([start[np.newaxis], start + np.cumsum(steps, axis=0)])
