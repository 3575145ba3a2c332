"""Predictions of a dataset's images, which are decoded as for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.inference.predictor import NO_PATIENT_COLUMNS, Predictor
from melanoma_lab.input_pipeline.prepare import PreparedData


@dataclass(frozen=True)
class DatasetPredictions:
    """A network's predictions of n images.

    Attributes:
        probabilities: float32, shape (n, K), as the network returns them.
        unlike: float32, shape (n,); relative distance of each image from the training images, above
            1 if it does not resemble them; None if the model has no detector.
    """

    probabilities: NDArray[np.float32]
    unlike: NDArray[np.float32] | None


def predict_dataset(
    data: PreparedData,
    positions: NDArray[np.int64],
    model: Predictor,
    *,
    encoding: PatientEncoder | None,
    batch_size: int,
    progress: ProgressCallback,
) -> DatasetPredictions:
    """Apply a network to some of a dataset's images.

    Args:
        data: the dataset, decoded at the network's image size.
        positions: int64, shape (n,), n > 0; positions of the images in the manifest.
        model: the network.
        encoding: encoder of the network's patient metadata; None if it takes only images.
        batch_size: number of images in a batch.
        progress: called with (done, total).

    Raises:
        UserError: the network's outputs are no probabilities.
    """
    probabilities, unlike = [], []
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        pixels = np.asarray(data.pixels[data.rows[chosen]])
        known = (
            encoding.to_model_inputs(data.manifest.iloc[chosen]) if encoding else NO_PATIENT_COLUMNS
        )
        answers = model.look_at(pixels, known)
        probabilities.append(answers.probabilities)
        if answers.unlike is not None:
            unlike.append(answers.unlike)
        progress(start + len(chosen), len(positions))
    return DatasetPredictions(
        np.concatenate(probabilities), np.concatenate(unlike) if unlike else None
    )
