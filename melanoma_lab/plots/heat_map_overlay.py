"""A map of where something was found, laid over the image that it was found in. No TensorFlow."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

#: Its lightness rises evenly, so that it reads the same in grey and with any colour blindness, and
#: its greens are no colour of skin.
COLOURS: Final = "viridis"
#: How much of the image the highest places hide.
MOST: Final = 0.6
#: The line is drawn around what is at least this share of the highest place.
LINE: Final = 0.5


def overlay_heat_map(pixels: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay a map over its image.

    The image loses its colours and keeps its light and dark; the map is the more opaque the higher
    it is, from nothing at 0, so that an image in which nothing was found is plain grey. A white
    line runs around what is at least half as high as the highest place.

    Args:
        pixels: uint8, shape (h, w, 3), RGB.
        heat: float, shape (h, w), 0 to 1; 1 is the highest place.

    Returns:
        uint8, shape (h, w, 3), RGB.

    Raises:
        ValueError: the two do not fit each other.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or heat.shape != pixels.shape[:2]:
        raise ValueError(
            f"Expected pixels (h, w, 3) and heat (h, w). Received {pixels.shape} and {heat.shape}."
        )
    grey = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
    heat = np.clip(heat, 0.0, 1.0)
    share = (MOST * heat)[..., None]
    colours = 255 * colormaps[COLOURS](heat)[..., :3]
    shown = (1 - share) * grey[..., None] + share * colours
    shown[_edge(heat >= LINE)] = 255
    made: NDArray[np.uint8] = np.rint(shown).astype(np.uint8)
    return made


def overlay_on_picture(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a map over a picture of another size; the map is stretched to the picture's.

    Args:
        picture: RGB.
        heat: float32, shape (s, s), 0 to 1.
    """
    stretched = Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.fromarray(overlay_heat_map(np.asarray(picture), np.asarray(stretched)))


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The places of an area beside which, up, down, left or right, is a place outside it."""
    around = np.pad(inside, 1, mode="edge")
    within = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: NDArray[np.bool_] = inside & ~within
    return edge
