"""A running mean of the weights over the steps of a fit, in the place of the weights for a while.

The optimizer computes it (Keras's ``use_ema``) and a checkpoint holds it with the rest of the
optimizer. Batch normalisation keeps the statistics that it has: running means themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


def assign_averaged_weights(model: keras.Model) -> None:
    """Replace the weights by their mean, as Keras does after a fit, if there is one.

    Args:
        model: compiled.
    """
    if _has_mean(model):
        model.optimizer.finalize_variable_values(model.trainable_variables)


@contextmanager
def protect_untrained_weights(model: keras.Model) -> Iterator[None]:
    """In this context a fit without a step leaves the weights as they are.

    At its end Keras puts the mean in their place, also where it is nothing but zeros.

    Args:
        model: compiled.
    """
    variables = model.trainable_variables if _averaging(model).use_ema else []
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    yield
    if not _has_mean(model):
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)


def _has_mean(model: keras.Model) -> bool:
    """Whether there is a mean: not before a step, nor where loss scaling has skipped them all."""
    optimizer = _averaging(model)
    return optimizer.use_ema and bool(keras.ops.convert_to_numpy(optimizer.iterations))


def _averaging(model: keras.Model) -> keras.Optimizer:
    """The optimizer that keeps a mean: the one within loss scaling, where there is that."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def use_averaged_weights(model: keras.Model) -> Iterator[None]:
    """In this context what trains has the mean of its weights, if the optimizer keeps one.

    Args:
        model: compiled.
    """
    if not _has_mean(model):
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
