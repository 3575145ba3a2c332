"""Fit a trivial classifier with scikit-learn, without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from melanoma_lab.data.split import TRAIN
from melanoma_lab.input_pipeline.balancing.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.trivial_classifiers import TrivialClassifier
from melanoma_lab.training.training_result import FitResult, TrainingResult


def fit_trivial_classifier(
    model: TrivialClassifier,
    data: PreparedData,
    images: BalancedSet,
    *,
    splits: Sequence[str] | None = None,
) -> TrainingResult:
    """Fit a trivial classifier to the training split and apply it to the splits.

    Args:
        model: classifier that is not fitted yet.
        data: the split dataset.
        images: the balanced training split. Only its class weights are used.
        splits: splits that the classifier is applied to; None: all.
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
