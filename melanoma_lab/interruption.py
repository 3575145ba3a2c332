"""Ctrl-C and SIGTERM where they would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruption_after() -> Iterator[None]:
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
