"""Handling of Ctrl-C and SIGTERM at places where an interrupt would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Delay interrupts until the block has ended.

    Use it for a block that deletes many objects: an interrupt is an exception, and Python drops an
    exception that is raised while an object is being deleted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    received: list[int] = []
    deferred = (signal.SIGINT, signal.SIGTERM)
    handlers = {
        number: handler for number in deferred if (handler := signal.getsignal(number)) is not None
    }
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def check_interrupt() -> None:
    """Raise KeyboardInterrupt again if other code dropped an earlier interrupt.

    An interrupt is an exception in the code that is running, and Keras and TensorFlow drop any
    exception at some places. The handler of SIGTERM remembers a request to stop in its attribute
    ``asked``.

    Raises:
        KeyboardInterrupt: the process was asked to stop.
    """
    if getattr(signal.getsignal(signal.SIGTERM), "asked", False):
        raise KeyboardInterrupt
