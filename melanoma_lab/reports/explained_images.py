"""Images of a run for pages and figures, with Grad-CAM heat maps laid over them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.data.decoding import decode_image, read_for_display
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.plots.grad_cam import overlay_on_picture
from melanoma_lab.reports.rendering import encode_jpeg_uri

if TYPE_CHECKING:  # this import would load TensorFlow
    from melanoma_lab.models.grad_cam import GradCam


#: Longest side of a picture in pixels; the page shows it at about half of this size.
LONGEST = 300
NO_NETWORK = "No Grad-CAM map: the model is not a network."

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]


class MissingImagesError(Exception):
    """Image files that were read before cannot be read again."""


@dataclass(frozen=True)
class ImageExplainer:
    """Functions that load images and compute their heat maps.

    Attributes:
        pixels: takes n image ids and returns the network's input images, uint8, shape (n, s, s, 3).
            It may raise ``MissingImagesError``.
        heat: takes image ids, pixels and the classes to explain, and returns heat maps from 0 to 1,
            float32, shape (n, s, s); None if there is no network.
        places: returns rows and columns of the heat maps before they are smoothed; call it only if
            there is ``heat``.
        resize: how images that are not square were made square in ``pixels``.
    """

    pixels: Callable[[Sequence[str]], Pixels]
    heat: Callable[[Sequence[str], Pixels, NDArray[np.intp]], Heat] | None = None
    places: Callable[[], tuple[int, int]] | None = None
    resize: Resize = Resize.squash


@dataclass(frozen=True)
class ExplainedImage:
    """One image as the network's input, with its heat map.

    Attributes:
        pixels: uint8, shape (s, s, 3).
        heat: float32, shape (s, s), 0 to 1; heat map of the predicted class; None if there is no
            network.
        resize: how an image that is not square was made square in ``pixels``.
    """

    pixels: Pixels
    heat: Heat | None
    resize: Resize

    def pair(self, side: int) -> tuple[Pixels, Pixels]:
        """Return the image, and the image with the heat map, as squares of ``side`` pixels or more.

        The map's contour is drawn after enlarging, so that it is thin on a small image too.

        Raises:
            ValueError: there is no heat map.
        """
        size = (max(side, len(self.pixels)),) * 2
        image = Image.fromarray(self.pixels).resize(size, Image.Resampling.BILINEAR)
        if self.heat is None:
            raise ValueError("Expected a map. Received an image that no network has looked at.")
        return np.asarray(image), np.asarray(overlay_on_picture(image, self.heat))

    def uris(self, path: str) -> tuple[str, str]:
        """Return the image, and the image with the heat map, as data URIs.

        They show the part of the file that the network saw, in its original proportions. If the
        file can no longer be read, they show the network's input. The second is empty if there is
        no heat map.
        """
        try:
            picture = read_for_display(path, LONGEST, self.resize)
        except (OSError, ValueError):
            picture = Image.fromarray(self.pixels)
        if self.heat is None:
            return encode_jpeg_uri(picture), ""
        return encode_jpeg_uri(picture), encode_jpeg_uri(overlay_on_picture(picture, self.heat))


def explain_images(
    explainer: ImageExplainer, image_ids: Sequence[str], classes: NDArray[np.intp]
) -> dict[str, ExplainedImage]:
    """Load images and compute their heat maps; return them by id.

    ``image_ids`` are n different ids, and ``classes``, intp (n,), the predicted class of each
    image.
    """
    if not image_ids:
        return {}
    pixels = explainer.pixels(image_ids)
    heat: Sequence[Heat | None] | Heat = [None] * len(image_ids)
    if explainer.heat is not None:
        heat = explainer.heat(image_ids, pixels, classes)
    return {
        one: ExplainedImage(image, heat_map, explainer.resize)
        for one, image, heat_map in zip(image_ids, pixels, heat, strict=True)
    }


def build_run_explainer(
    data: PreparedData, network: Any, encoding: PatientEncoder | None = None
) -> ImageExplainer:
    """Build an explainer for the images of a prepared dataset, which are decoded already.

    It computes no heat maps if the network is None. ``encoding`` encodes the network's patient
    metadata; it is None if the network takes only images.
    """
    index = pd.Index(data.manifest["image_id"])

    def pixels(image_ids: Sequence[str]) -> Pixels:
        return np.asarray(data.pixels[data.rows[index.get_indexer(list(image_ids))]])

    def encode(image_ids: Sequence[str]) -> list[NDArray[np.generic]]:
        if encoding is None:
            return []
        rows = data.manifest.iloc[index.get_indexer(list(image_ids))]
        columns = encoding.to_model_inputs(rows)
        return [columns[tensor.name] for tensor in network.inputs if tensor.name in columns]

    return _build_explainer(pixels, data.resize, network, encode)


def build_file_explainer(
    manifest: pd.DataFrame, size: int, network: Any, resize: Resize = Resize.squash
) -> ImageExplainer:
    """Build an explainer for image files, which are read again.

    It computes no heat maps if the network, which takes only images, is None.

    Args:
        manifest: table with the columns image_id and path.
        size: side in pixels of the network's images.
        network: a Keras model, or None.
        resize: how images that are not square are made square.
    """
    path = manifest.set_index("image_id")["path"]

    def pixels(image_ids: Sequence[str]) -> Pixels:
        try:
            return np.stack(
                [decode_image(str(path[image_id]), size, resize) for image_id in image_ids]
            )
        except (OSError, ValueError) as error:
            raise MissingImagesError(f"An image cannot be read again: {error}.") from error

    return _build_explainer(pixels, resize, network, lambda _: [])


def _build_explainer(
    pixels: Callable[[Sequence[str]], Pixels],
    resize: Resize,
    network: Any,
    encode: Callable[[Sequence[str]], list[NDArray[np.generic]]],
) -> ImageExplainer:
    """Build an explainer of a network whose Grad-CAM is built when it is first needed.

    ``encode`` returns the network's inputs besides pixels.
    """
    if network is None:
        return ImageExplainer(pixels, resize=resize)

    @functools.cache
    def get_grad_cam() -> GradCam:
        from melanoma_lab.models.grad_cam import GradCam

        return GradCam(network)

    def heat(image_ids: Sequence[str], pixels: Pixels, classes: NDArray[np.intp]) -> Heat:
        return get_grad_cam()(pixels, classes, encode(image_ids))

    return ImageExplainer(pixels, heat, lambda: get_grad_cam().places, resize)
