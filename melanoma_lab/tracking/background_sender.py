"""Figures on their way to the tracking server while the network trains.

MLflow can log in the background itself, but what it fails to send is gone, and a process whose
server hangs does not end (mlflow/mlflow#20575). Here nothing is forgotten before it has arrived.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


class BackgroundSender:
    """Sends in the background, in order, as much at a time as is waiting.

    A slow server gets fewer and larger requests. After a failure everything is tried again when
    the next figures come, and once more at the end.

    Args:
        send: sends a list of things; raises where it could not, and may be given the same again.
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
        """Send these when it is their turn; returns at once."""
        with self._changed:
            self._waiting += things
            self._due = True
            self._changed.notify_all()

    def close(self, patience: float | None = None) -> Exception | None:
        """Wait until everything was sent or an attempt has failed; nothing is sent after that.

        Args:
            patience: seconds to wait at most; None: as long as an attempt takes.

        Returns:
            Why some of it was not sent; None where all was.
        """
        with self._changed:
            failures = self._failures
            self._changed.wait_for(self._idle, patience)
            if self._waiting and self._failures == failures and not self._sending:
                self._due = True  # what failed before may work now
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
            except Exception as error:  # noqa: BLE001 - told by close
                problem = error
            with self._changed:
                self._sending = False
                self._problem = problem
                if problem is None:
                    del self._waiting[: len(things)]
                else:
                    self._failures += 1
                self._changed.notify_all()
