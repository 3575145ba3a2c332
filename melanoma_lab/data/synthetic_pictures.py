"""Paint a lesion on a patch of skin, and photograph it.

A picture is made of random fields and masks, square unless stated otherwise. Lengths are fractions
of a field's width, so that a picture looks the same at every size. All arrays are float64, so that
a last-bit difference between two CPUs almost never changes an 8-bit pixel.

The patch is painted in even white light. Colours follow the law of Beer and Lambert: the
transmittance of each pigment for red, green and blue is raised to the power of its density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from melanoma_lab.data.synthetic_classes import LesionAppearance

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
        start: first point of the line, shape (2,).
        angle: first direction of the line, in radians.
        bend: standard deviation of the change of direction over the whole line, in radians.
    """
    angles = angle + np.cumsum(rng.normal(0, bend / np.sqrt(11), 11))
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / 11)
    return np.concatenate([start[np.newaxis], start + np.cumsum(steps, axis=0)])


# Width of the patch divided by that of a picture: margin for rotating and shifting the view.
PATCH = 1.5

# Red, green and blue transmittance at density 1.
_MELANIN = np.array([0.52, 0.30, 0.20])
_BLOOD = np.array([0.88, 0.40, 0.48])
_DEEP = np.array([0.40, 0.48, 0.62])
_BARE = np.array([0.97, 0.90, 0.87])
_WHITE = np.array([0.98, 0.93, 0.90])


def paint_patch(rng: np.random.Generator, lesion: LesionAppearance, image_size: int) -> Field:
    """Paint one lesion in the middle of a patch of skin, for photographs of ``image_size`` pixels.

    The patch is RGB from 0 to 1, shape (size, size, 3); size is ``PATCH`` times ``image_size``.
    """
    size = round(PATCH * image_size)
    inside = outline(rng, lesion, size)
    melanin, blood, deep = pigments(rng, lesion, inside)
    melanin += brown_structures(rng, lesion, inside)
    blood += red_structures(rng, lesion, inside)
    white = white_structures(rng, lesion, inside)
    colour = skin(rng, size)
    for density, transmittance in ((melanin, _MELANIN), (blood, _BLOOD), (deep, _DEEP)):
        colour = colour * rotate_hue(transmittance, lesion.hue) ** density[..., np.newaxis]
    cover = np.clip(white, 0, 0.9)[..., np.newaxis]
    return np.asarray((1 - cover) * colour + cover * _WHITE)


def skin(rng: np.random.Generator, size: int) -> Field:
    """Paint bare skin of a random tone: RGB, shape (size, size, 3)."""
    tan = rng.gamma(2.0, 0.04) * np.exp(0.15 * clouds(rng, size, 0.1))
    freckles = rng.gamma(1.0, 0.08) * smooth_step(clouds(rng, size, 0.02) - 2.0, 0.4)
    lines = rng.uniform(0.0, 0.08) * net(rng, size, 0.025)
    flush = rng.gamma(2.0, 0.055) * np.exp(0.25 * clouds(rng, size, 0.04))
    flush += 0.03 * clouds(rng, size, 0.008)
    melanin = (tan + freckles + lines)[..., np.newaxis]
    return np.asarray(_BARE * _MELANIN**melanin * _BLOOD ** flush[..., np.newaxis])


def outline(rng: np.random.Generator, lesion: LesionAppearance, size: int) -> Field:
    """Draw a soft mask of the lesion, shape (size, size): from 0 (skin) to 1 (lesion)."""
    x, y = pixel_coordinates(size)
    radius = lesion.radius / PATCH
    stretch = np.sqrt(1 + lesion.elongation)
    distance = np.hypot(x / stretch, y * stretch) / radius
    stray = clouds(rng, size, 0.08) + 0.5 * clouds(rng, size, 0.025)
    return smooth_step(1 - distance + lesion.ragged * stray, max(lesion.softness, 0.03))


def pigments(
    rng: np.random.Generator, lesion: LesionAppearance, inside: Field
) -> tuple[Field, Field, Field]:
    """Draw the densities of melanin, blood and deep pigment, each of the shape of ``inside``."""
    size = inside.shape[0]
    x, _ = pixel_coordinates(size)
    slope = np.exp(lesion.asymmetry * (3 * x + 0.8 * clouds(rng, size, 0.09)))
    patches = np.exp(lesion.mottle * (clouds(rng, size, 0.035) + 0.5 * clouds(rng, size, 0.012)))
    melanin = lesion.melanin * inside * slope * patches
    halo = 0.25 * lesion.halo * gaussian_blur(inside, 0.07) * np.exp(0.3 * clouds(rng, size, 0.05))
    blood = lesion.blood * inside * np.exp(0.6 * lesion.mottle * clouds(rng, size, 0.04)) + halo
    deep = 1.5 * lesion.deep * inside**2 * smooth_step(clouds(rng, size, 0.06) - 0.2, 0.5)
    return melanin, blood, deep


def brown_structures(rng: np.random.Generator, lesion: LesionAppearance, inside: Field) -> Field:
    """Draw the additional melanin of the network and the globules."""
    size = inside.shape[0]
    network = lesion.network * (net(rng, size, 0.035) - 0.35)
    globules = 1.2 * min(lesion.globules, 1.5) * dots(rng, size, 700 * lesion.globules, 0.006)
    return np.asarray(inside * (0.8 * lesion.melanin * network + globules))


def red_structures(rng: np.random.Generator, lesion: LesionAppearance, inside: Field) -> Field:
    """Draw the additional blood of branching vessels and lacunae."""
    size = inside.shape[0]
    lakes = 0.9 * lesion.lacunae * (dots(rng, size, 250, 0.022) - 0.3)
    return np.asarray(inside * lakes) + 0.9 * gaussian_blur(inside, 0.02) * vessels(
        rng, lesion, size
    )


def vessels(rng: np.random.Generator, lesion: LesionAppearance, size: int) -> Field:
    """Draw vessels that grow towards the lesion's centre and branch once: 1 on a vessel."""
    lines = []
    for _ in range(rng.poisson(5 * lesion.vessels)):
        angle = rng.uniform(0, 2 * np.pi)
        start = 1.2 * lesion.radius / PATCH * np.array([np.cos(angle), np.sin(angle)])
        stem = draw_curve(
            rng, start, angle + np.pi + rng.normal(0, 0.5), rng.uniform(0.08, 0.2), 1.2
        )
        branch = draw_curve(rng, stem[6], angle + np.pi + rng.normal(0, 1.0), 0.07, 1.2)
        lines += [stem, branch]
    return draw_strokes(size, lines, 0.006)


def white_structures(rng: np.random.Generator, lesion: LesionAppearance, inside: Field) -> Field:
    """Draw the share of white at each pixel, from cysts, scar and scale."""
    size = inside.shape[0]
    x, y = pixel_coordinates(size)
    cysts = 0.6 * min(lesion.cysts, 1.2) * dots(rng, size, 350 * lesion.cysts, 0.008)
    width = 0.45 * lesion.radius / PATCH
    distance = np.hypot(x, y) / width + 0.35 * clouds(rng, size, 0.04)
    scar = 0.55 * min(lesion.scar, 1.5) * smooth_step(1 - distance, 0.6)
    flakes = clouds(rng, size, 0.03) + 0.8 * clouds(rng, size, 0.008)
    scale = 0.5 * lesion.scale * smooth_step(flakes - 1.0, 0.6)
    return np.asarray(inside * (cysts + scar + scale))


def rotate_hue(transmittance: Field, hue: float) -> Field:
    """Rotate a colour about the grey axis by ``hue`` radians (Rodrigues); clip it to 0.05 to 1."""
    grey = np.full(3, 1 / np.sqrt(3))
    rotated = (
        transmittance * np.cos(hue)
        + np.cross(grey, transmittance) * np.sin(hue)
        + grey * (grey @ transmittance) * (1 - np.cos(hue))
    )
    return np.asarray(np.clip(rotated, 0.05, 1.0))


@dataclass(frozen=True)
class Camera:
    """A clinic's dermatoscope.

    Attributes:
        name: the ``source`` of its photographs.
        cast: colour cast: factors of red, green and blue.
        tube: probability that the round edge of the tube is in the picture.
        gel: mean number of bubbles in the contact gel.
        ruler: probability that the scale on the glass is in the picture.
    """

    name: str
    cast: tuple[float, float, float]
    tube: float
    gel: float
    ruler: float


CAMERAS = (
    Camera(name="clinic_a_polarised", cast=(1.00, 0.97, 0.92), tube=0.10, gel=0.0, ruler=0.0),
    Camera(name="clinic_b_contact", cast=(0.97, 0.94, 1.00), tube=0.25, gel=0.5, ruler=0.12),
)


def take_photograph(
    rng: np.random.Generator, patch: Field, camera: Camera, image_size: int
) -> NDArray[np.uint8]:
    """Photograph a patch from a random direction and distance, in random light.

    The patch is RGB from 0 to 1, with a width above ``image_size``; the photograph is uint8, shape
    (image_size, image_size, 3).
    """
    picture = view(rng, patch, image_size)
    picture = add_hairs(rng, picture)
    picture = add_bubbles(rng, picture, camera)
    picture = add_ruler(rng, picture, camera)
    picture = apply_lighting(rng, picture, camera)
    picture = add_tube(rng, picture, camera)
    return apply_sensor(rng, picture)


def view(rng: np.random.Generator, patch: Field, image_size: int) -> Field:
    """Rotate, zoom and shift the patch; return shape (image_size, image_size, 3)."""
    angle = rng.uniform(0, 2 * np.pi)
    zoom = np.exp(rng.normal(0.0, 0.15))
    shift = rng.normal(0.0, 0.06, 2) * image_size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    offset = (patch.shape[0] - 1) / 2 + shift - turn @ np.full(2, (image_size - 1) / 2)
    channels = [
        ndimage.affine_transform(
            patch[..., channel], turn, offset, (image_size, image_size), order=1, mode="mirror"
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def add_hairs(rng: np.random.Generator, picture: Field) -> Field:
    """Add hairs to most pictures: few or many, of one colour and roughly one direction."""
    number = rng.poisson(rng.gamma(0.5, 8.0))
    stubble = rng.random() < 0.25
    direction = rng.uniform(0, 2 * np.pi)
    lines = []
    for _ in range(number):
        length = 0.08 if stubble else rng.uniform(0.3, 1.2)
        angle = direction + rng.normal(0, 0.5)
        lines.append(draw_curve(rng, rng.uniform(-0.6, 0.6, 2), angle, length, bend=0.6))
    cover = rng.uniform(0.4, 0.85) * draw_strokes(
        picture.shape[0], lines, rng.uniform(0.006, 0.013)
    )
    colour = rng.uniform(0.05, 0.4) * np.array([1.0, 0.75, 0.6])
    return _over(picture, cover, colour)


def add_bubbles(rng: np.random.Generator, picture: Field, camera: Camera) -> Field:
    """Add bubbles in the contact gel: bright rings with a glint."""
    x, y = pixel_coordinates(picture.shape[0])
    cover = np.zeros(picture.shape[:2])
    for _ in range(rng.poisson(camera.gel)):
        radius = rng.uniform(0.015, 0.05)
        centre = rng.uniform(-0.5, 0.5, 2)
        distance = np.hypot(x - centre[0], y - centre[1])
        glint = np.hypot(x - centre[0] + radius / 2, y - centre[1] + radius / 2)
        cover += 0.45 * np.exp(-(((distance - radius) / 0.008) ** 2))
        cover += 0.8 * np.exp(-((glint / (0.3 * radius)) ** 2))
    return _over(picture, np.clip(cover, 0, 0.9), np.array([1.0, 1.0, 1.0]))


def add_ruler(rng: np.random.Generator, picture: Field, camera: Camera) -> Field:
    """Add the scale engraved in the glass along one edge, if it is in the picture."""
    if rng.random() >= camera.ruler:
        return picture
    edge = rng.uniform(0.40, 0.46)
    places = np.arange(-0.5, 0.5, 0.06)
    lengths = np.where(np.arange(places.size) % 5 == 0, 0.06, 0.03)
    ticks = [
        np.array([[place, edge], [place, edge - length]])
        for place, length in zip(places, lengths, strict=True)
    ]
    axis = np.array([[-0.5, edge], [0.5, edge]])
    marks = np.rot90(draw_strokes(picture.shape[0], [axis, *ticks], 0.008), int(rng.integers(4)))
    return _over(picture, 0.75 * marks, np.array([0.08, 0.08, 0.1]))


def apply_lighting(rng: np.random.Generator, picture: Field, camera: Camera) -> Field:
    """Apply light that decreases towards the edges and one side, and the camera's colour cast."""
    x, y = pixel_coordinates(picture.shape[0])
    tilt = rng.normal(0.0, 0.15, 2)
    falloff = rng.uniform(0.1, 0.7) * (x**2 + y**2)
    unevenness = 0.015 * clouds(rng, picture.shape[0], 0.2)
    light = 1 + tilt[0] * x + tilt[1] * y - falloff + unevenness
    exposure = np.exp(rng.normal(0.0, 0.06))
    cast = np.array(camera.cast) * np.exp(rng.normal(0.0, 0.025, 3))
    return np.asarray(picture * (exposure * light)[..., np.newaxis] * cast)


def add_tube(rng: np.random.Generator, picture: Field, camera: Camera) -> Field:
    """Add the dark corners outside the dermatoscope's round tube, if it is in the picture."""
    if rng.random() >= camera.tube:
        return picture
    x, y = pixel_coordinates(picture.shape[0])
    centre = rng.normal(0.0, 0.02, 2)
    distance = np.hypot(x - centre[0], y - centre[1])
    dark = smooth_step(distance - rng.uniform(0.47, 0.6), 0.012)
    return _over(picture, dark, np.array([0.03, 0.025, 0.03]))


def apply_sensor(rng: np.random.Generator, picture: Field) -> NDArray[np.uint8]:
    """Apply the sensor: slight blur, noise, contrast, and rounding to uint8."""
    size = picture.shape[0]
    blur = rng.uniform(0.1, 0.7)
    sharp = ndimage.gaussian_filter(picture, (blur, blur, 0))
    grain = rng.uniform(0.004, 0.015) * rng.standard_normal((size, size, 3))
    contrast = np.clip(sharp + grain, 0, 1) ** rng.uniform(0.95, 1.2)
    return np.asarray(np.round(255 * contrast), dtype=np.uint8)


def _over(picture: Field, cover: Field, colour: Field) -> Field:
    return picture + cover[..., np.newaxis] * (colour - picture)
