"""Photograph a patch of skin: view, hairs, bubbles, ruler, light, tube and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_lab.data.synthetic.fields import (
    Field,
    clouds,
    draw_curve,
    draw_strokes,
    pixel_coordinates,
    smooth_step,
)


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

    Args:
        rng: source of random numbers.
        patch: RGB from 0 to 1, shape (size, size, 3), size greater than ``image_size``.
        camera: the camera.
        image_size: width and height of the picture in pixels.

    Returns:
        uint8, shape (image_size, image_size, 3).
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
