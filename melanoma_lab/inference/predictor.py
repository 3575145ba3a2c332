"""What a network says of decoded images, and whether it should be believed.

``predict``, ``demo`` and ``evaluate`` come here, so that they never say two things of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import show_progress
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.inference.model_source import ModelSource, resolve_model_info
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.training.backend import start_backend

#: From uint8 pixels, shape (n, s, s, 3), or a dictionary of these and of what is known of
#: patients, to probabilities, float32, shape (n, K).
PredictFunction = Callable[[Any], NDArray[np.float32]]
#: The threshold is the probability of an image of val, and the last bits of a network's answer
#: depend on the batch that the image is in.
THRESHOLD_TOLERANCE = 1e-6
#: Nothing is known beside the images.
NO_PATIENT_COLUMNS: Mapping[str, NDArray[Any]] = {}


@dataclass(frozen=True)
class PredictionBatch:
    """What a network says of n images.

    Attributes:
        probabilities: float32, shape (n, K), as the network gives them.
        calibrated: float32, shape (n, K); None where nothing says how to calibrate.
        reached: bool, shape (n,): whether the operating point's threshold is reached; None where
            there is none.
        unlike: float32, shape (n,): above 1, an image looks unlike the training images; None where
            nothing says what those look like.
    """

    probabilities: NDArray[np.float32]
    calibrated: NDArray[np.float32] | None
    reached: NDArray[np.bool_] | None
    unlike: NDArray[np.float32] | None

    @property
    def decided(self) -> NDArray[np.int64]:
        """The most probable class of each image; int64, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)


@dataclass(frozen=True)
class Predictor:
    """A network that can be asked.

    Attributes:
        source: where it comes from.
        card: what its outputs mean.
        network: the Keras model.
        size: side in pixels of the images that it takes.
        answer: from what it takes to probabilities.
    """

    source: ModelSource
    card: ModelInfo
    network: Any
    size: int
    answer: PredictFunction

    def look_at(
        self, pixels: NDArray[np.uint8], known: Mapping[str, NDArray[Any]] = NO_PATIENT_COLUMNS
    ) -> PredictionBatch:
        """Ask the network, and read its answer as was chosen on val.

        Args:
            pixels: uint8, shape (n, size, size, 3), RGB, n at least 1.
            known: what the network takes beside them, each of shape (n, 1).

        Raises:
            UserError: the network's answers are no probabilities.
        """
        probabilities = self.answer({"pixels": pixels, **known} if known else pixels)
        calibrated = reached = unlike = None
        if self.source.advice is not None:
            scores = self.source.advice.temperature.apply(probabilities.astype(np.float64))
            reached = _reached(scores, self.source.advice, self.card)
            calibrated = scores.astype(np.float32)
        if self.source.appearance is not None:
            unlike = self.source.appearance.relative_distance(pixels)
        return PredictionBatch(probabilities, calibrated, reached, unlike)


def load_predictor(
    source: ModelSource, *, threads: int, seed: int, patients: bool = False
) -> Predictor:
    """Start TensorFlow and load a network that was found.

    Args:
        source: as ``find_model`` gives it.
        threads: for TensorFlow's kernels.
        seed: of the global generators.
        patients: whether what its card's encoding takes of patients is known.

    Raises:
        UserError: it cannot be loaded safely, takes more than what is known, or its card is of
            another.
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


def _reached(
    scores: NDArray[np.float64], advice: DecisionRule, card: ModelInfo
) -> NDArray[np.bool_] | None:
    """Which calibrated probabilities reach the operating point's threshold."""
    if advice.slug not in card.slugs or math.isnan(advice.threshold):
        return None
    least = advice.threshold - THRESHOLD_TOLERANCE
    return np.asarray(scores[:, card.slugs.index(advice.slug)] >= least)
