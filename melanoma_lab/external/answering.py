"""What a network says of a dataset's images, decoded as for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.data.metadata import Encoding
from melanoma_lab.data.prepare import PreparedData
from melanoma_lab.evaluation.appearance import Appearance
from melanoma_lab.prediction.opened import Opened
from melanoma_lab.progress import Progress


@dataclass(frozen=True)
class Answers:
    """What a network says of n images.

    Attributes:
        probabilities: float32, shape (n, K).
        unlike: float32, shape (n,), how far they look from its training images; above 1 unlike
            them; None where nothing says what those look like.
    """

    probabilities: NDArray[np.float32]
    unlike: NDArray[np.float32] | None


def answers_to(
    data: PreparedData,
    positions: NDArray[np.int64],
    network: Opened,
    *,
    encoding: Encoding | None,
    appearance: Appearance | None,
    batch_size: int,
    progress: Progress,
) -> Answers:
    """Apply a network to some of a dataset's images.

    Args:
        data: decoded at the size that the network takes.
        positions: int64, shape (n,), in the manifest; n > 0.
        network: to apply.
        encoding: of what it takes of patients; None where it takes images alone.
        appearance: of its training images.
        batch_size: images that are looked at together.
        progress: called with (done, total).

    Raises:
        UserError: its answers are no probabilities.
    """
    probabilities, unlike = [], []
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        pixels = np.asarray(data.pixels[data.rows[chosen]])
        known = encoding.columns_of(data.manifest.iloc[chosen]) if encoding else {}
        probabilities.append(network.answer({"pixels": pixels, **known} if known else pixels))
        if appearance is not None:
            unlike.append(appearance.unlikeness(pixels))
        progress(start + len(chosen), len(positions))
    return Answers(np.concatenate(probabilities), np.concatenate(unlike) if unlike else None)
