"""Explainers that load a run's images and compute their Grad-CAM heat maps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.decoding import decode_image
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.reports.error_analysis.explained_images import (
    Heat,
    ImageExplainer,
    MissingImagesError,
    Pixels,
)

if TYPE_CHECKING:  # this import would load TensorFlow
    from melanoma_lab.models.grad_cam import GradCam

NO_NETWORK = "No map says where it looked: it is no network."


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
