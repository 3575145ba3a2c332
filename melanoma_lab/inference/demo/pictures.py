"""Pictures as the page shows them: small files within the page itself, kept nowhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.decoding import read_picture, resize_for_display
from melanoma_lab.plots.heat_map_overlay import overlay_on_picture
from melanoma_lab.reports.thumbnails import encode_jpeg_uri

#: Pixels of the longer side of a picture that was given, and of one that is shown beside it.
LARGE, SMALL = 480, 192


def load_picture(path: str, longest: int, resize: Resize) -> Image.Image:
    """What a network sees of a file, upright and in its true proportions, at most so large.

    Args:
        path: an image file.
        longest: side in pixels.
        resize: what becomes of its proportions where the network sees it.

    Raises:
        ValueError: the content cannot be decoded.
        OSError: the file cannot be read.
    """
    return resize_for_display(read_picture(path, at_least=2 * longest), longest, resize)


def draw_heat_map(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """A picture under a map of what moved the network, large whatever the picture's size.

    The map is a square and gets the picture's own proportions.

    Args:
        picture: as ``load_picture`` gives it.
        heat: float32, shape (s, s), 0 to 1.
    """
    square = picture.resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    laid = overlay_on_picture(square, heat)
    longest = max(picture.size)
    size = [max(1, round(LARGE * side / longest)) for side in picture.size]
    return laid.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def encode_data_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI, in the quality of something to look at closely."""
    return encode_jpeg_uri(picture, quality=88, optimize=False)
