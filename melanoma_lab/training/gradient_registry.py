"""Release the memory of custom gradients that TensorFlow registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework import ops


@contextmanager
def free_registered_gradients() -> Iterator[None]:
    """Remove the custom gradients that are registered in this context.

    Tracing a graph with a custom gradient registers that gradient permanently under a new name.
    Every graph of a training step has one, because Keras's optimizers sum gradients over replicas,
    on one device too. A registered gradient references its graph, and the graph the weights of the
    network and of its optimizer, so that every fit would leak three times the network's size. The
    names are looked up only when a graph is differentiated, which ends before the context does.
    TensorFlow has no public function to remove one.
    """
    registered = ops.gradient_registry._registry  # noqa: SLF001
    before = set(registered)
    try:
        yield
    finally:
        for name in registered.keys() - before:
            del registered[name]
