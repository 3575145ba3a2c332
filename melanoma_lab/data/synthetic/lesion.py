"""Paint a lesion on a patch of skin, in even white light.

Colours follow the law of Beer and Lambert: the transmittance of each pigment for red, green and
blue is raised to the power of its density.
"""

from __future__ import annotations

import numpy as np

from melanoma_lab.data.synthetic.appearance import LesionAppearance
from melanoma_lab.data.synthetic.fields import (
    Field,
    clouds,
    dots,
    draw_curve,
    draw_strokes,
    gaussian_blur,
    net,
    pixel_coordinates,
    smooth_step,
)

# Width of the patch divided by that of a picture: margin for rotating and shifting the view.
PATCH = 1.5

# Red, green and blue transmittance at density 1.
_MELANIN = np.array([0.52, 0.30, 0.20])
_BLOOD = np.array([0.88, 0.40, 0.48])
_DEEP = np.array([0.40, 0.48, 0.62])
_BARE = np.array([0.97, 0.90, 0.87])
_WHITE = np.array([0.98, 0.93, 0.90])


def paint_patch(rng: np.random.Generator, lesion: LesionAppearance, image_size: int) -> Field:
    """Paint one lesion in the middle of a patch of skin.

    Args:
        rng: source of random numbers.
        lesion: appearance of the lesion.
        image_size: width in pixels of the photographs of it.

    Returns:
        RGB from 0 to 1, shape (size, size, 3); size is ``PATCH`` times ``image_size``.
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
