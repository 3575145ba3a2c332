"""What a network says of a dataset's images, decoded as for training."""

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
    """What a network says of n images.

    Attributes:
        probabilities: float32, shape (n, K), as the network gives them.
        unlike: float32, shape (n,), how far they look from its training images; above 1 unlike
            them; None where nothing says what those look like.
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
        data: decoded at the size that the network takes.
        positions: int64, shape (n,), in the manifest; n > 0.
        model: to apply.
        encoding: of what it takes of patients; None where it takes images alone.
        batch_size: images that are looked at together.
        progress: called with (done, total).

    Raises:
        UserError: its answers are no probabilities.
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
