"""What a training leaves behind, whether a network was trained or a trivial arm fitted.

No TensorFlow here: trivial arms and what records a run do not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.data.patient_metadata import PatientEncoder

MAX_SAMPLES = 18
"""Most training images that are kept for a figure of what the network sees: three rows of six."""


@dataclass(frozen=True)
class FitResult:
    """What a fit did, from its first epoch on, in however many processes.

    Attributes:
        history: figures of every epoch: train_loss, train_accuracy, train_balanced_accuracy, the
            same of val, learning_rate (at its end, before a plateau lowers it), seconds,
            images_per_second. The train ones are running means in training mode, with dropout and
            augmentation; of a mixed image, accuracy takes the class that
            has the largest share for the true one.
        best_epoch: number, from 1, of the epoch whose weights were kept; 0 where there are none, or
            no epoch was any good.
        optimizer_steps: steps taken, also after the best epoch.
        seconds: from the first step to the last validation, without what was done in vain between
            the last checkpoint and the end of a process that was killed.
        diverged: where and how the loss stopped being a number; None where it did not.
        trainable: how many numbers it could change, at most, in any epoch; None where it changes
            none step by step.
    """

    history: list[dict[str, float]]
    best_epoch: int
    optimizer_steps: int
    seconds: float
    diverged: str | None
    trainable: int | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind.

    Attributes:
        fit: what the fit did.
        parameters: how many numbers it computes with.
        probabilities: float, shape (n, n_classes), in inference mode, for the rows of the manifest
            that it was applied to; None where they are not finite, or no epoch's weights were any
            good.
        network: a Keras model from raw pixels, perhaps with raw metadata, to probabilities, with
            the kept epoch's weights; None for a trivial arm.
        encoding: of metadata, where they count.
        sample_images: float32, shape (m, H, W, 3), 0 to 255: training images as the network saw
            them, after balancing and augmentation; none for a trivial arm.
        sample_labels: float32, shape (m, K): the share of each class in them; more than one where
            images are mixed.
    """

    fit: FitResult
    parameters: int
    probabilities: NDArray[np.floating] | None
    network: Any = None
    encoding: PatientEncoder | None = None
    sample_images: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 1, 1, 3), np.float32)
    )
    sample_labels: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 1), np.float32))

    @property
    def diverged(self) -> str | None:
        """Where and how numbers stopped being finite; None where they did not.

        The last step of a fit shows in no loss of training: what it has done shows in what the
        network predicts.
        """
        if self.fit.diverged is not None or self.probabilities is not None:
            return self.fit.diverged
        if not self.fit.best_epoch:
            return "the loss on val was no finite number after any epoch"
        return "the network predicts what is no finite number"
