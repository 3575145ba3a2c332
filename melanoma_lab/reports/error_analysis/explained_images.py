"""The images that are shown of a run, at a size for a page, and the maps laid over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.decoding import read_picture, resize_for_display
from melanoma_lab.plots.heat_map_overlay import overlay_on_picture
from melanoma_lab.reports.thumbnails import encode_jpeg_uri

#: Longest side of a picture on the page, in pixels; shown at about half of it.
LONGEST = 300

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]


class MissingImagesError(Exception):
    """Images that were read some other day cannot be read again."""


@dataclass(frozen=True)
class ImageExplainer:
    """How images, and where a network looks in them, are had.

    Attributes:
        pixels: image ids -> uint8, shape (n, s, s, 3), as the network takes them. It may raise
            ``MissingImagesError``.
        heat: (image ids, pixels, classes) -> float32, shape (n, s, s), 0 to 1; None where there is
            no network.
        places: rows and columns of the maps that heat is made of; called where there is heat.
        resize: what has become of the images' proportions in ``pixels``.
    """

    pixels: Callable[[Sequence[str]], Pixels]
    heat: Callable[[Sequence[str], Pixels, NDArray[np.intp]], Heat] | None = None
    places: Callable[[], tuple[int, int]] | None = None
    resize: Resize = Resize.squash


@dataclass(frozen=True)
class ExplainedImage:
    """One image as the network got it, and where it looked.

    Attributes:
        pixels: uint8, shape (s, s, 3).
        heat: float32, shape (s, s), for what it predicted; None where there is no network.
        resize: what has become of its proportions in ``pixels``.
    """

    pixels: Pixels
    heat: Heat | None
    resize: Resize

    def pair(self, side: int) -> tuple[Pixels, Pixels]:
        """The image, and the map laid over it, as squares of at least so many pixels a side.

        The line is drawn after the image has grown: it stays thin in a small one.
        """
        size = (max(side, len(self.pixels)),) * 2
        image = Image.fromarray(self.pixels).resize(size, Image.Resampling.BILINEAR)
        if self.heat is None:
            raise ValueError("Expected a map. Received an image that no network has looked at.")
        return np.asarray(image), np.asarray(overlay_on_picture(image, self.heat))

    def uris(self, path: str) -> tuple[str, str]:
        """The image, and the map laid over it (empty: none), as data URIs.

        Both are made from what the network saw of the file, in its true proportions, and from what
        the network got of it where it can no longer be read.
        """
        try:
            picture = resize_for_display(
                read_picture(path, at_least=2 * LONGEST), LONGEST, self.resize
            )
        except (OSError, ValueError):
            picture = Image.fromarray(self.pixels)
        if self.heat is None:
            return encode_jpeg_uri(picture), ""
        return encode_jpeg_uri(picture), encode_jpeg_uri(overlay_on_picture(picture, self.heat))


def explain_images(
    explainer: ImageExplainer, image_ids: Sequence[str], classes: NDArray[np.intp]
) -> dict[str, ExplainedImage]:
    """Load images and compute where the network looks in them.

    Args:
        explainer: loads the images and computes their heat maps.
        image_ids: n ids, each once.
        classes: intp, shape (n,): what each was predicted to be.
    """
    if not image_ids:
        return {}
    pixels = explainer.pixels(image_ids)
    if explainer.heat is None:
        return {
            one: ExplainedImage(image, None, explainer.resize)
            for one, image in zip(image_ids, pixels, strict=True)
        }
    heat = explainer.heat(image_ids, pixels, classes)
    return {
        one: ExplainedImage(image, where, explainer.resize)
        for one, image, where in zip(image_ids, pixels, heat, strict=True)
    }
