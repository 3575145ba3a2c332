"""Optimizers."""

from __future__ import annotations

from collections.abc import Callable

import keras

from melanoma_lab.config.schema import Optimizer, Sgd


def build_optimizer(optimizer: Optimizer) -> keras.Optimizer:
    """The optimizer that the configuration names."""
    return BUILDERS[optimizer.name](optimizer)


def adam(optimizer: Optimizer) -> keras.Optimizer:
    """Adam (Kingma and Ba, 2015) with Keras's defaults."""
    return keras.optimizers.Adam(learning_rate=optimizer.learning_rate)


def sgd(optimizer: Optimizer) -> keras.Optimizer:
    """Stochastic gradient descent."""
    if not isinstance(optimizer, Sgd):
        raise TypeError(f"Expected Sgd. Received {type(optimizer).__name__}.")
    return keras.optimizers.SGD(
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )


#: optimizer.name -> its builder.
BUILDERS: dict[str, Callable[[Optimizer], keras.Optimizer]] = {"adam": adam, "sgd": sgd}
