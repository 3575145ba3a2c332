"""Pictures of the demo page: small JPEGs inside the page itself, never stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.decoding import read_picture, resize_for_display
from melanoma_lab.plots.heat_map_overlay import overlay_on_picture
from melanoma_lab.reports.thumbnails import encode_jpeg_uri

#: Length in pixels of the longer side of the uploaded picture, and of a training image.
LARGE, SMALL = 480, 192


def load_picture(path: str, longest: int, resize: Resize) -> Image.Image:
    """Load the part of a picture that a network sees, upright and in its original proportions.

    Args:
        path: the path of an image file.
        longest: the maximum length of the longer side, in pixels.
        resize: how the network's input is made from the image; ``crop`` shows the middle only.

    Raises:
        ValueError: the content cannot be decoded.
        OSError: the file cannot be read.
    """
    return resize_for_display(read_picture(path, at_least=2 * longest), longest, resize)


def draw_heat_map(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Draw a heat map over a picture; the result's longer side has ``LARGE`` pixels.

    The square map is stretched to the picture's proportions.

    Args:
        picture: a picture from ``load_picture``.
        heat: the heat map; float32, shape (s, s), 0 to 1.
    """
    square = picture.resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    laid = overlay_on_picture(square, heat)
    longest = max(picture.size)
    size = [max(1, round(LARGE * side / longest)) for side in picture.size]
    return laid.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def encode_data_uri(picture: Image.Image) -> str:
    """Encode a picture as a data URI with a JPEG, in a quality to be looked at closely."""
    return encode_jpeg_uri(picture, quality=88, optimize=False)
