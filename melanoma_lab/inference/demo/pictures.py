"""Pictures as the page shows them: small files within the page itself, kept nowhere."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.decoding import read_picture, resize_for_display
from melanoma_lab.plots.heat_map_overlay import overlay_heat_map

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
    heat = np.asarray(Image.fromarray(heat).resize((LARGE, LARGE), Image.Resampling.BILINEAR))
    laid = Image.fromarray(overlay_heat_map(np.asarray(square), heat))
    longest = max(picture.size)
    size = [max(1, round(LARGE * side / longest)) for side in picture.size]
    return laid.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def encode_data_uri(picture: Image.Image) -> str:
    """The picture itself as an address."""
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
