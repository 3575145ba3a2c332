"""A training that takes no time: for tests of what is done around a fit.

It stands in for the trainer's own function: same arguments, a history of every epoch, checkpoints
from which it resumes with the same result, probabilities that depend on the configuration. The
network is the configured one and is never fitted, so it does not compute these probabilities.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from melanoma_lab.core.interrupts import check_interrupt
from melanoma_lab.training.checkpoint import Checkpoint
from melanoma_lab.training.fit import RECORDER, read_history
from melanoma_lab.training.trainer import count_epoch_steps
from melanoma_lab.training.training_result import FitResult, TrainingResult


@contextmanager
def instant_training() -> Iterator[None]:
    """Let networks that are trained in the block, in this process, be trained in no time."""
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("melanoma_lab.training.trainer")
        patch.setattr(module, "train_network", train_instantly)
        yield


def train_instantly(
    config: Any,
    data: Any,
    images: Any,
    setup: Any,
    *,
    on_step: Any,
    on_epoch: Any,
    on_fitted: Any = lambda: None,
    start: Checkpoint | None = None,
    checkpoints: Any = None,
    splits: Any = None,
) -> TrainingResult:
    """Return what the trainer's function returns.

    The skill is a sum over epochs, so that an epoch that is lost or done twice changes the result,
    and is highest at a learning rate of 0.003.
    """
    steps = count_epoch_steps(config, data, images)
    skill = np.zeros(1) if start is None else start.arrays["skill"]
    history = [] if start is None else read_history(start)
    last = config.training.last_epoch
    for epoch in range(len(history) + 1, last + 1):
        check_interrupt()
        noise = np.random.default_rng([config.seed, epoch]).normal(scale=0.1)
        skill = skill + 1 / (1 + abs(math.log(config.optimizer.learning_rate / 0.003))) + noise
        loss = float(np.exp(-skill[0] / 10))
        figures = {
            f"{split}_{name}": value
            for split in ("train", "val")
            for name, value in (
                ("loss", loss),
                ("accuracy", 1 - loss / 2),
                ("balanced_accuracy", 1 - loss / 2),
            )
        }
        times = {"seconds": 0.01, "images_per_second": 100.0}
        figures |= {"learning_rate": config.optimizer.learning_rate, **times}
        history.append(figures)
        for step in range(1, steps + 1):
            on_step(step, {"loss": loss, "accuracy": figures["train_accuracy"]})
        if checkpoints is not None:
            state = Checkpoint(epoch, {"skill": skill}, {RECORDER: {"history": [*history]}})
            checkpoints.save_if_affordable(lambda state=state: state, last=epoch == last)
        on_epoch(epoch, figures)
    on_fitted()
    labels = data.labels[data.select_splits(splits)]
    draw = np.random.default_rng(config.seed).normal(size=(len(labels), len(data.classes)))
    scores = np.exp(draw + skill[0] / 4 * np.eye(len(data.classes))[labels])
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    size = config.dataset.image_size
    return TrainingResult(
        fit=FitResult(history, len(history), steps * len(history), 0.1, None, trainable=1),
        parameters=setup.network.count_params(),
        probabilities=probabilities,
        network=setup.network,
        encoding=None if data.patients is None else data.patients.encoding,
        sample_images=np.zeros((1, size, size, 3), np.float32),
        sample_labels=np.eye(len(data.classes), dtype=np.float32)[:1],
    )
