"""Predict decoded images, with calibration, decision and a check for unlike images.

``predict``, ``demo`` and ``evaluate`` all use this module, so that they agree about an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import show_progress
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.inference.model_source import ModelSource, resolve_model_info
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.training.hardware import start_backend

#: From uint8 pixels, shape (n, s, s, 3), or a dictionary of pixels and patient metadata, to
#: probabilities, float32, shape (n, K).
PredictFunction = Callable[[Any], NDArray[np.float32]]
#: The threshold is the probability of an image of val, and the last bits of a network's output
#: depend on the other images in the batch.
THRESHOLD_TOLERANCE = 1e-6


@dataclass(frozen=True)
class PredictionBatch:
    """The predictions of n images.

    Attributes:
        probabilities: the network's own probabilities; float32, shape (n, K).
        calibrated: the calibrated probabilities, float32, shape (n, K); None if the model has no
            decision rule.
        reached: whether the operating point's threshold is reached, bool, shape (n,); None if there
            is no operating point.
        unlike: relative distance from the training images, float32, shape (n,); an image with more
            than 1 is unlike them. None if the model has no detector.
    """

    probabilities: NDArray[np.float32]
    calibrated: NDArray[np.float32] | None
    reached: NDArray[np.bool_] | None
    unlike: NDArray[np.float32] | None

    @property
    def decided(self) -> NDArray[np.int64]:
        """The most probable class of each image; int64, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @classmethod
    def concatenate(cls, batches: Sequence[PredictionBatch]) -> PredictionBatch:
        """Join the predictions of one or more batches by the same network."""
        joined: dict[str, Any] = {}
        for name in (item.name for item in fields(cls)):
            arrays = [getattr(batch, name) for batch in batches]
            joined[name] = None if arrays[0] is None else np.concatenate(arrays)
        return cls(**joined)


@dataclass(frozen=True)
class Predictor:
    """A loaded network.

    Attributes:
        source: the saved network and its origin.
        card: the description of its inputs and outputs.
        network: the Keras model.
        size: the height and width of its input images, in pixels.
        answer: the function from inputs to probabilities.
    """

    source: ModelSource
    card: ModelInfo
    network: Any
    size: int
    answer: PredictFunction

    def look_at(
        self, pixels: NDArray[np.uint8], known: Mapping[str, NDArray[Any]] | None = None
    ) -> PredictionBatch:
        """Predict images, and apply the decision rule chosen on val.

        ``pixels`` are uint8, shape (n, size, size, 3), RGB, n at least 1; ``known`` are the
        network's other inputs by name, each of shape (n, 1).

        Raises:
            UserError: the network's outputs are not probabilities.
        """
        probabilities = self.answer({"pixels": pixels, **known} if known else pixels)
        calibrated = reached = unlike = None
        if self.source.advice is not None:
            scores = self.source.advice.temperature.apply(probabilities.astype(np.float64))
            reached = _compare_with_threshold(scores, self.source.advice, self.card)
            calibrated = scores.astype(np.float32)
        if self.source.appearance is not None:
            unlike = self.source.appearance.relative_distance(pixels)
        return PredictionBatch(probabilities, calibrated, reached, unlike)


def load_predictor(
    source: ModelSource, *, threads: int, seed: int, patients: bool = False
) -> Predictor:
    """Start TensorFlow and load a network.

    ``patients`` says whether the patient metadata that the network's description names are known.

    Raises:
        UserError: it cannot be loaded safely, needs unknown inputs, or has another number of
            classes than its description.
    """
    start_backend(threads=threads, seed=seed, precision=Precision.float32)
    with show_progress("loading the network"):
        from melanoma_lab.inference.network import (
            build_predict_function,
            count_classes,
            image_size,
            load_network,
        )

        encoding = source.card.encoding if source.card and patients else None
        network = load_network(source.network, tuple(encoding or ()))
    card = resolve_model_info(source, count_classes(network))
    return Predictor(source, card, network, image_size(network), build_predict_function(network))


def _compare_with_threshold(
    scores: NDArray[np.float64], advice: DecisionRule, card: ModelInfo
) -> NDArray[np.bool_] | None:
    """Return which images reach the threshold: bool, shape (n,); None if there is none."""
    if advice.slug not in card.slugs or math.isnan(advice.threshold):
        return None
    least = advice.threshold - THRESHOLD_TOLERANCE
    return np.asarray(scores[:, card.slugs.index(advice.slug)] >= least)
