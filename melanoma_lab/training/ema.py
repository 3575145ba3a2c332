"""Exponential moving average (EMA) of the weights over the steps of a fit.

The optimizer computes the average (Keras's ``use_ema``), and a checkpoint contains it with the rest
of the optimizer. The statistics of batch normalisation are not averaged again: they are moving
averages already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


def assign_averaged_weights(model: keras.Model) -> None:
    """Replace the weights by their moving average, if there is one, as Keras does after a fit.

    Args:
        model: compiled model.
    """
    if _has_average(model):
        model.optimizer.finalize_variable_values(model.trainable_variables)


@contextmanager
def protect_untrained_weights(model: keras.Model) -> Iterator[None]:
    """Keep the weights unchanged if a fit in this context ends before its first step.

    At the end of a fit Keras replaces the weights by their average, even if that is still zero.

    Args:
        model: compiled model.
    """
    variables = model.trainable_variables if _averaging_optimizer(model).use_ema else []
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    yield
    if not _has_average(model):
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)


def _has_average(model: keras.Model) -> bool:
    """Return whether there is an average: not before a step, nor if loss scaling skipped all."""
    optimizer = _averaging_optimizer(model)
    return optimizer.use_ema and bool(keras.ops.convert_to_numpy(optimizer.iterations))


def _averaging_optimizer(model: keras.Model) -> keras.Optimizer:
    """Return the optimizer that averages weights: with loss scaling, the inner one."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def use_averaged_weights(model: keras.Model) -> Iterator[None]:
    """Use the averaged weights in this context, if the optimizer averages them.

    Args:
        model: compiled model.
    """
    if not _has_average(model):
        yield
        return
    variables = model.trainable_variables
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    assign_averaged_weights(model)
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
