"""Ctrl-C and SIGTERM where they would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let an interruption that comes in the block wait for its end.

    For a block that deletes much: Python drops an exception that is raised while an object is
    being deleted, and an interruption is one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    asked: list[int] = []
    polite = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: handler for number in polite if (handler := signal.getsignal(number)) is not None
    }
    for number in before:
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])


def check_interrupt() -> None:
    """Interrupt again what was asked to stop and goes on.

    An interruption is an exception in whatever code runs just then, and Keras and TensorFlow have
    places that drop any exception. A handler that says ``asked`` keeps what it was asked for.

    Raises:
        KeyboardInterrupt: the process was asked to stop.
    """
    if getattr(signal.getsignal(signal.SIGTERM), "asked", False):
        raise KeyboardInterrupt
