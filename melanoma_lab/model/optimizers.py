"""Optimizers. A builder takes the options and returns a Keras optimizer."""

from __future__ import annotations

import keras

from melanoma_lab.config.schema.optimizer import Adam, Optimizer, Sgd
from melanoma_lab.registry import builder, find_builder


def build_optimizer(optimizer: Optimizer) -> keras.Optimizer:
    """The optimizer that the configuration names."""
    return find_builder("optimizer", optimizer.name)(optimizer)


@builder("optimizer", "adam")
def adam(optimizer: Adam) -> keras.Optimizer:
    """Adam (Kingma and Ba, 2015) with Keras's defaults."""
    return keras.optimizers.Adam(learning_rate=optimizer.learning_rate)


@builder("optimizer", "sgd")
def sgd(optimizer: Sgd) -> keras.Optimizer:
    """Stochastic gradient descent."""
    return keras.optimizers.SGD(
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )
