"""The result of a training, of a network or a trivial classifier, and the fit of the latter.

This module does not need TensorFlow, because trivial classifiers and the recording of runs do not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import TRAIN
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.trivial_classifiers import TrivialClassifier

MAX_SAMPLES = 18
"""Most training images that are kept for a figure of what the network sees: three rows of six."""


@dataclass(frozen=True)
class FitResult:
    """History of a fit from its first epoch on, also if it was interrupted and resumed.

    Attributes:
        history: metrics of every epoch: train_loss, train_accuracy, train_balanced_accuracy, the
            same with val_, learning_rate (at the end of the epoch, before a plateau schedule lowers
            it), seconds, images_per_second. The train metrics are running means in training mode,
            with dropout and augmentation. The true class of a mixed image is the one with the
            largest share.
        best_epoch: number, from 1, of the epoch whose weights were kept; 0 if no epoch had finite
            losses, or the classifier is not trained in epochs.
        optimizer_steps: number of steps, including those after the best epoch.
        seconds: time from the first step to the last validation, without work that was lost between
            the last checkpoint and the end of a process that was killed.
        diverged: sentence that says when the loss stopped being finite; None if it did not.
        trainable: largest number of weights that an epoch could change; None if the classifier is
            not trained in steps.
    """

    history: list[dict[str, float]]
    best_epoch: int
    optimizer_steps: int
    seconds: float
    diverged: str | None
    trainable: int | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, of a network or a trivial classifier, and the fit of the latter.

    Attributes:
        fit: history of the fit.
        parameters: number of parameters of the network or classifier.
        probabilities: float, shape (n, n_classes), in inference mode, for those rows of the
            manifest that it was applied to; None if a value is not finite, or a network had no
            epoch with finite losses.
        network: Keras model from raw pixels, perhaps with raw metadata, to probabilities, with the
            best epoch's weights; None for a trivial classifier.
        encoding: encoder of patient metadata, if the model uses them.
        sample_images: float32, shape (m, H, W, 3), values 0 to 255: training images after balancing
            and augmentation; empty for a trivial classifier.
        sample_labels: float32, shape (m, n_classes): the share of each class in the sample images;
            more than one class has a share if images are mixed.
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
        """Sentence that says when numbers stopped being finite; None if they did not.

        The loss on train does not show the effect of the last step. The predictions do.
        """
        if self.fit.diverged is not None or self.probabilities is not None:
            return self.fit.diverged
        if not self.fit.best_epoch:
            return "the validation loss was not a finite number after any epoch"
        return "the network predicts numbers that are not finite"


def fit_trivial_classifier(
    model: TrivialClassifier,
    data: PreparedData,
    images: BalancedSet,
    *,
    splits: Sequence[str] | None = None,
) -> TrainingResult:
    """Fit a trivial classifier with scikit-learn to the training split; apply it to the splits.

    Args:
        images: the balanced training split. Only its class weights are used.
    """
    train = data.select_split(TRAIN)
    labels = data.labels[train]
    weight = images.class_weight
    weights = np.ones(len(train)) if weight is None else weight[labels].astype(np.float64)
    measured = data.select_splits(splits)
    started = time.perf_counter()
    # One thread is fast enough, and the bits must not depend on the number of threads.
    with threadpool_limits(1):
        model.classifier.fit(model.features[train], labels, **{model.weight_name: weights})
        of_known_classes = model.classifier.predict_proba(model.features[measured])
    seconds = time.perf_counter() - started
    # A class without training images has probability 0.
    probabilities = np.zeros((len(measured), len(data.classes)))
    probabilities[:, model.classifier.classes_] = of_known_classes
    fit = FitResult(history=[], best_epoch=0, optimizer_steps=0, seconds=seconds, diverged=None)
    encoding = data.patients.encoding if data.patients else None
    return TrainingResult(fit, model.parameters(model.classifier), probabilities, encoding=encoding)
