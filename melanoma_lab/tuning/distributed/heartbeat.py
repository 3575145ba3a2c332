"""The tie between a worker and its chief: neither trains for the other in vain."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Self

from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.launching import GRACE
from melanoma_lab.tuning.distributed.process_role import CHIEF_PROCESS
from melanoma_lab.tuning.distributed.worker_pool import ASKED

#: Seconds between two looks at the chief's process, and two requests of a worker that is to wait.
PAUSE = 1.0


class Heartbeat:
    """Shows the chief that this process lives, and ends what is trained here if nobody wants it.

    Args:
        patience: seconds between two signs of life.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._show: Callable[[str], None] = lambda _: None
        self._trial_id = ""
        self._stopped = threading.Event()
        #: Why this process is to end.
        self.lost: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lifeline", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def show_by(self, show: Callable[[str], None]) -> None:
        """Say how the chief is told of a trial that it is being trained."""
        self._show = show

    def begin(self, trial_id: str) -> None:
        """Show, from now on, that this process has a trial."""
        self._trial_id = trial_id

    def end(self) -> None:
        """Show it no more."""
        self._trial_id = ""

    def _run(self) -> None:
        chief, due = os.environ.get(CHIEF_PROCESS, ""), time.monotonic()
        while not self._stopped.wait(min(PAUSE, self._patience)):
            try:
                if chief and os.getppid() != int(chief):
                    self._end(RunError("The chief's process is gone."))
                    return
                if self._trial_id and time.monotonic() >= due:
                    due = time.monotonic() + self._patience
                    self._show(self._trial_id)
            except (UserError, RunError) as error:
                self._end(error)
                return

    def _end(self, error: Exception) -> None:
        """Interrupt the main thread, as Ctrl-C would; end the process if that does not help."""
        if self._stopped.is_set():
            return
        self.lost = error
        for _ in range(ASKED):
            _thread.interrupt_main(signal.SIGTERM)
            if self._stopped.wait(GRACE / ASKED):
                return
        os._exit(1)
