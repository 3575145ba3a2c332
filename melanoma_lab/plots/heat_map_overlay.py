"""Heat maps laid over images, without TensorFlow."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

#: Colour map whose lightness rises evenly, so that it is readable in grey and with any colour
#: blindness; its greens do not occur in skin.
COLOURS: Final = "viridis"
#: Opacity of the map at its maximum.
MOST: Final = 0.6
#: The contour is drawn around the area with at least this share of the maximum.
LINE: Final = 0.5


def overlay_heat_map(pixels: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay a heat map over its image.

    The image is shown in grey. The opacity of the map rises with its value, from 0 at 0, so an
    image with an empty map is plain grey. A white contour surrounds the area with at least half of
    the maximum.

    Args:
        pixels: uint8, shape (h, w, 3), RGB.
        heat: float, shape (h, w), 0 to 1; 1 is the maximum.

    Returns:
        uint8, shape (h, w, 3), RGB.

    Raises:
        ValueError: the shapes do not match.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or heat.shape != pixels.shape[:2]:
        raise ValueError(
            f"Expected pixels (h, w, 3) and heat (h, w). Received {pixels.shape} and {heat.shape}."
        )
    grey = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
    heat = np.clip(heat, 0.0, 1.0)
    share = (MOST * heat)[..., None]
    colours = 255 * colormaps[COLOURS](heat)[..., :3]
    blended = (1 - share) * grey[..., None] + share * colours
    blended[_find_edge(heat >= LINE)] = 255
    overlay: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return overlay


def overlay_on_picture(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a heat map over a picture of another size; the map is stretched to its size.

    Args:
        picture: an RGB image.
        heat: float32, shape (s, s), 0 to 1.
    """
    stretched = Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.fromarray(overlay_heat_map(np.asarray(picture), np.asarray(stretched)))


def _find_edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of an area with a neighbour (up, down, left or right) outside it."""
    around = np.pad(inside, 1, mode="edge")
    within = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: NDArray[np.bool_] = inside & ~within
    return edge
