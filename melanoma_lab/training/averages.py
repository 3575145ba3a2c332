"""A running mean of the weights over the steps of a fit, in the place of the weights for a while.

The optimizer computes it (Keras's ``use_ema``) and a checkpoint holds it with the rest of the
optimizer. Batch normalisation keeps the statistics that it has: running means themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """In this context what trains has the mean of its weights, if the optimizer keeps one.

    Args:
        model: compiled; fitted for a step at least.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of loss scaling
    # Before the first step, and where loss scaling has skipped all of them, there is no mean.
    if not optimizer.use_ema or keras.ops.convert_to_numpy(optimizer.iterations) == 0:
        yield
        return
    variables = model.trainable_variables
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
