"""Sending metrics to the tracking server in the background while the network trains.

MLflow can log in the background itself, but it loses what it fails to send, and the process does
not end if the server hangs (mlflow/mlflow#20575). Here nothing is dropped before it is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


class BackgroundSender:
    """Background thread that sends all waiting items in one request, in order.

    A slow server therefore gets fewer and larger requests. After a failure, all unsent items are
    sent again together with the next ones, and once more at the end.

    Args:
        send: function that sends a list of items and raises an error if it fails. It may get the
            same items again after that.
    """

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self._send = send
        self._waiting: list[Any] = []
        self._changed = threading.Condition()
        self._due = self._sending = self._closed = False
        self._failures = 0
        self._problem: Exception | None = None
        # A daemon: a server that hangs must not keep the process from ending.
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def put(self, things: Sequence[Any]) -> None:
        """Queue items for sending and return at once."""
        with self._changed:
            self._waiting += things
            self._due = True
            self._changed.notify_all()

    def close(self, patience: float | None = None) -> Exception | None:
        """Wait until all items are sent or an attempt has failed; then stop sending.

        Args:
            patience: the longest time to wait in seconds; None: as long as an attempt takes.

        Returns:
            Why some items were not sent; None if all were sent.
        """
        with self._changed:
            failures = self._failures
            self._changed.wait_for(self._idle, patience)
            if self._waiting and self._failures == failures and not self._sending:
                self._due = True  # an attempt that failed before may work now
                self._changed.notify_all()
                self._changed.wait_for(self._idle, patience)
            self._closed = True
            self._changed.notify_all()
            if not self._waiting:
                return None
            return self._problem or TimeoutError("no answer in time")

    def _idle(self) -> bool:
        return not self._due and not self._sending

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed)
                if self._closed:
                    return
                things = list(self._waiting)
                self._due, self._sending = False, True
            problem = None
            try:
                self._send(things)
            except Exception as error:  # noqa: BLE001 - close returns it
                problem = error
            with self._changed:
                self._sending = False
                self._problem = problem
                if problem is None:
                    del self._waiting[: len(things)]
                else:
                    self._failures += 1
                self._changed.notify_all()
