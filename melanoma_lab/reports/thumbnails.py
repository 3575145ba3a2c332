"""Small pictures as data URIs, for pages that are single files."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image

from melanoma_lab.data.decoding import read_picture

#: Longest side in pixels; pages show pictures at half of it, so that they are sharp on any screen.
MAX_SIDE: Final = 208


def make_thumbnail(path: str) -> str:
    """Return a small JPEG of an image file as a data URI, upright, in its own proportions.

    Args:
        path: a readable image file.

    Raises:
        ValueError: the content cannot be decoded; the message says why.
        OSError: the file cannot be opened or read.
    """
    picture = read_picture(path, at_least=MAX_SIDE)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return encode_jpeg_uri(picture)


def encode_jpeg_uri(picture: Image.Image, *, quality: int = 68, optimize: bool = True) -> str:
    """Return a picture as a JPEG in a data URI.

    Args:
        picture: an RGB image.
        quality: quality of the JPEG, 1 to 95.
        optimize: whether to make the file smaller, which takes longer.
    """
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=optimize)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
