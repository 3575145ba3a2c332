"""How the images of a run are had, and where its network looks in them."""

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

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.models.grad_cam import GradCam

NO_NETWORK = "No map says where it looked: it is no network."


def build_run_explainer(
    data: PreparedData, network: Any, encoding: PatientEncoder | None = None
) -> ImageExplainer:
    """Of images that are decoded already.

    Args:
        data: the dataset.
        network: a Keras model; None: there is none.
        encoding: of what it takes of patients; None where it takes images alone.
    """
    place = pd.Index(data.manifest["image_id"])

    def pixels(image_ids: Sequence[str]) -> Pixels:
        return np.asarray(data.pixels[data.rows[place.get_indexer(list(image_ids))]])

    def heat(image_ids: Sequence[str], pixels: Pixels, classes: NDArray[np.intp]) -> Heat:
        known: list[NDArray[np.generic]] = []
        if encoding is not None:
            rows = data.manifest.iloc[place.get_indexer(list(image_ids))]
            columns = encoding.to_model_inputs(rows)
            names = [tensor.name for tensor in network.inputs]
            known = [columns[name] for name in names if name in columns]
        return explainer()(pixels, classes, known)

    explainer = _explainer_of(network)
    if network is None:
        return ImageExplainer(pixels, resize=data.resize)
    return ImageExplainer(pixels, heat, lambda: explainer().places, data.resize)


def build_file_explainer(
    manifest: pd.DataFrame, size: int, network: Any, resize: Resize = Resize.squash
) -> ImageExplainer:
    """Of images that are read again, for a network that takes nothing else, or for none.

    Args:
        manifest: with image_id and path.
        size: side in pixels that they are brought to.
        network: a Keras model; None: there is none.
        resize: what becomes of their proportions.
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
        return explainer()(pixels, classes)

    explainer = _explainer_of(network)
    if network is None:
        return ImageExplainer(pixels, resize=resize)
    return ImageExplainer(pixels, heat, lambda: explainer().places, resize)


def _explainer_of(network: Any) -> Callable[[], GradCam]:
    """What makes Grad-CAM maps by a network, found when it is first asked for."""

    @functools.cache
    def explainer() -> GradCam:
        from melanoma_lab.models.grad_cam import GradCam

        return GradCam(network)

    return explainer
