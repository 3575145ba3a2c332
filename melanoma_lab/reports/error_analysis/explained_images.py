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
from melanoma_lab.plots.heat_map_overlay import overlay_on_picture
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
        """Return the image, and the image with the heat map, as enlarged squares.

        The map's contour is drawn after enlarging, so that it is thin on a small image too.

        Args:
            side: the least side of the squares in pixels.

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
        file can no longer be read, they show the network's input.

        Args:
            path: the image file.

        Returns:
            Two data URIs; the second is empty if there is no heat map.
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
    """Load images and compute their heat maps.

    Args:
        explainer: loads the images and computes their heat maps.
        image_ids: n different ids.
        classes: intp, shape (n,); predicted class of each image.

    Returns:
        The explained images by id.
    """
    if not image_ids:
        return {}
    pixels = explainer.pixels(image_ids)
    heat = (
        [None] * len(image_ids)
        if explainer.heat is None
        else explainer.heat(image_ids, pixels, classes)
    )
    return {
        one: ExplainedImage(image, heat_map, explainer.resize)
        for one, image, heat_map in zip(image_ids, pixels, heat, strict=True)
    }


def build_run_explainer(
    data: PreparedData, network: Any, encoding: PatientEncoder | None = None
) -> ImageExplainer:
    """Build an explainer for the images of a prepared dataset, which are decoded already.

    Args:
        data: the dataset.
        network: a Keras model; None: no heat maps are computed.
        encoding: encoder of the network's patient metadata; None if it takes only images.
    """
    index = pd.Index(data.manifest["image_id"])

    def pixels(image_ids: Sequence[str]) -> Pixels:
        return np.asarray(data.pixels[data.rows[index.get_indexer(list(image_ids))]])

    def heat(image_ids: Sequence[str], pixels: Pixels, classes: NDArray[np.intp]) -> Heat:
        known: list[NDArray[np.generic]] = []
        if encoding is not None:
            rows = data.manifest.iloc[index.get_indexer(list(image_ids))]
            columns = encoding.to_model_inputs(rows)
            names = [tensor.name for tensor in network.inputs]
            known = [columns[name] for name in names if name in columns]
        return get_grad_cam()(pixels, classes, known)

    get_grad_cam = _build_on_first_use(network)
    if network is None:
        return ImageExplainer(pixels, resize=data.resize)
    return ImageExplainer(pixels, heat, lambda: get_grad_cam().places, data.resize)


def build_file_explainer(
    manifest: pd.DataFrame, size: int, network: Any, resize: Resize = Resize.squash
) -> ImageExplainer:
    """Build an explainer for image files, which are read again.

    Args:
        manifest: table with the columns image_id and path.
        size: side in pixels of the network's images.
        network: a Keras model that takes only images; None: no heat maps are computed.
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

    def heat(_: Sequence[str], pixels: Pixels, classes: NDArray[np.intp]) -> Heat:
        return get_grad_cam()(pixels, classes)

    get_grad_cam = _build_on_first_use(network)
    if network is None:
        return ImageExplainer(pixels, resize=resize)
    return ImageExplainer(pixels, heat, lambda: get_grad_cam().places, resize)


def _build_on_first_use(network: Any) -> Callable[[], GradCam]:
    """Return a function that builds Grad-CAM of a network at its first call and keeps it."""

    @functools.cache
    def get_grad_cam() -> GradCam:
        from melanoma_lab.models.grad_cam import GradCam

        return GradCam(network)

    return get_grad_cam
