"""Optimizers. A builder takes the options and returns a Keras optimizer."""

from __future__ import annotations

import keras

from melanoma_lab.config.schema.training import Adam, AdamW, Optimizer, RmsProp, Sgd
from melanoma_lab.registry import builder, find_builder


def build_optimizer(
    optimizer: Optimizer,
    network: keras.Model,
    *,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
) -> keras.Optimizer:
    """Build the configured optimizer.

    Weight decay, from the optimizer's or the regularisation's configuration, does not apply to
    weights with fewer than two dimensions: biases, and scales and offsets of normalisation.

    Args:
        optimizer: the chosen option with its parameters.
        network: network that the optimizer will train.
        learning_rate: constant learning rate, or a schedule of it by step.
        weight_decay: factor that, times the learning rate, is the share by which a step reduces a
            kernel (Loshchilov and Hutter, 2019); 0 keeps the value from the optimizer's options.
    """
    built: keras.Optimizer = find_builder("optimizer", optimizer.name)(optimizer)
    built.learning_rate = learning_rate
    if weight_decay:
        built.weight_decay = weight_decay
    if optimizer.ema is not None:
        built.use_ema, built.ema_momentum = True, optimizer.ema
    built.exclude_from_weight_decay(
        var_list=[variable for variable in network.trainable_variables if len(variable.shape) < 2]
    )
    return built


@builder("optimizer", "adam")
def adam(optimizer: Adam) -> keras.Optimizer:
    """Build Adam (Kingma and Ba, 2015) with Keras's defaults."""
    return keras.optimizers.Adam(learning_rate=optimizer.learning_rate)


@builder("optimizer", "adamw")
def adamw(optimizer: AdamW) -> keras.Optimizer:
    """Build AdamW, with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return keras.optimizers.AdamW(
        learning_rate=optimizer.learning_rate, weight_decay=optimizer.weight_decay
    )


@builder("optimizer", "rmsprop")
def rmsprop(optimizer: RmsProp) -> keras.Optimizer:
    """Build RMSprop (Tieleman and Hinton, 2012)."""
    return keras.optimizers.RMSprop(
        learning_rate=optimizer.learning_rate, rho=optimizer.rho, momentum=optimizer.momentum
    )


@builder("optimizer", "sgd")
def sgd(optimizer: Sgd) -> keras.Optimizer:
    """Build stochastic gradient descent."""
    return keras.optimizers.SGD(
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )
