"""Custom gradients that TensorFlow registers, and their memory given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework import ops


@contextmanager
def free_registered_gradients() -> Iterator[None]:
    """Take back the custom gradients that are registered while the block lasts.

    A graph that is traced with a custom gradient in it registers that gradient for good, under a
    new name, and so every graph of a training step does: Keras's optimizers sum gradients over
    replicas, on one device too. What is registered holds the graph, and that the weights of the
    network and of its optimizer; every fit would leave three times the network's size behind. The
    names are looked up only when a graph is differentiated, which is over when the block is.
    TensorFlow has no public way to take one back.
    """
    registered = ops.gradient_registry._registry  # noqa: SLF001
    before = set(registered)
    try:
        yield
    finally:
        for name in registered.keys() - before:
            del registered[name]
