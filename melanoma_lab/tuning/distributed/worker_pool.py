"""The workers that a chief starts on its own machine: processes that end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hydra.core.hydra_config import HydraConfig

from melanoma_lab import registry
from melanoma_lab.core.errors import UserError
from melanoma_lab.launching import GRACE
from melanoma_lab.tuning.distributed.process_role import (
    CHIEF_PROCESS,
    ORACLE_IP,
    ORACLE_PORT,
    TUNER_ID,
)
from melanoma_lab.tuning.space_validation import TuneCommand

#: How often a process is asked to end in its time of grace: Python drops an interruption that comes
#: while an object is being deleted, as many are when a trial begins.
ASKED = 2
#: Lines of what a worker printed that are shown where it did not come up.
LAST_LINES = 5


@dataclass(frozen=True)
class DeadWorker:
    """A worker that has ended.

    Attributes:
        name: of the worker.
        status: as a shell has it; negative: the signal that ended it.
    """

    name: str
    status: int

    @property
    def why(self) -> str:
        """How it ended, in words."""
        if self.status < 0:
            return f"its process was ended by signal {-self.status} (killed? out of memory?)"
        return f"its process ended with status {self.status}"


class WorkerPool:
    """Workers of this machine; what they print is in a file for each.

    Args:
        count: how many.
        words: the command that starts one.
        folder: of the files.
        host: where the chief listens.
        port: likewise.
        gpus: those that each worker is to see, by turns; empty: all see the same.
    """

    def __init__(
        self,
        count: int,
        words: Sequence[str],
        folder: Path,
        *,
        host: str,
        port: int,
        gpus: Sequence[str] = (),
    ) -> None:
        self._count, self._words, self._folder, self._gpus = count, words, folder, gpus
        self._chief = {
            # 0.0.0.0 is a place to listen at, and none to call.
            ORACLE_IP: {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104
            ORACLE_PORT: str(port),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them."""
        for number in range(self._count):
            self.log(_name(number)).unlink(missing_ok=True)
            self._start(number)

    def start_again(self, name: str) -> None:
        """Start one that has ended; what the earlier one printed stays."""
        self._start(int(name.removeprefix(_name(""))))

    def ended(self) -> list[DeadWorker]:
        """Those that have ended since this was last asked."""
        gone = [
            DeadWorker(name, process.returncode)
            for name, process in self._running.items()
            if process.poll() is not None
        ]
        for worker in gone:
            del self._running[worker.name]
        return gone

    def kill(self, name: str) -> None:
        """End one that no longer answers."""
        if name in self._running:
            self._running[name].kill()

    def log(self, name: str) -> Path:
        """Return the file with a worker's output."""
        return self._folder / f"{name}.log"

    def last_words(self, name: str) -> str:
        """Return the last lines of a worker's output."""
        with suppress(OSError):
            text = self.log(name).read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if line.strip()]
            return "\n".join(lines[-LAST_LINES:])
        return ""

    def wait(self, seconds: float) -> None:
        """Let them end by themselves."""
        until = time.monotonic() + seconds
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask those that still run to end, which marks their runs as KILLED; then end them."""
        running = [process for process in self._running.values() if process.poll() is None]
        try:
            for _ in range(ASKED):
                for process in running:
                    process.terminate()
                self.wait(GRACE / ASKED)
        finally:  # also where the user has no patience
            for process in running:
                process.kill()
                process.wait()

    def _start(self, number: int) -> None:
        name = _name(number)
        own = {
            TUNER_ID: name,
            **self._chief,
            CHIEF_PROCESS: str(os.getpid()),
            # What this process imports, that one can.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        if self._gpus:
            own["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        with self.log(name).open("ab") as file:
            self._running[name] = subprocess.Popen(  # noqa: S603 - this program again
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                start_new_session=True,  # Ctrl-C is for the chief, which asks everybody
            )


def _name(number: int | str) -> str:
    """Return the name of a worker, one that users do not give to workers of other machines."""
    return f"local-worker-{number}"


def build_worker_command(command: TuneCommand) -> list[str]:
    """Return the command that starts a worker of this process's search.

    Args:
        command: the command that the user typed.

    Raises:
        UserError: the search uses options that are declared only in this process.
    """
    program = [sys.executable, "-m", "melanoma_lab"]
    if any(registry.get_user_options()):
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None or not HydraConfig.initialized():
            raise UserError(
                "tuner.workers: expected 1 where options of your own are declared in this process "
                "alone; a script's command line (python my_lab.py tune ...) takes them along."
            )
        program = [sys.executable, str(Path(script).resolve())]
    folder = [] if command.config_dir is None else ["--config-dir", str(command.config_dir)]
    return [*program, "tune", *folder, *command.overrides, *command.tuner_overrides]


def assign_gpus(devices: int | None, environment: Mapping[str, str]) -> list[str]:
    """Assign a GPU to each worker if there are several and each worker needs one.

    This loads TensorFlow.

    Args:
        devices: the setting ``training.devices``.
        environment: environment variables, of which ``CUDA_VISIBLE_DEVICES`` is read.

    Returns:
        Values of ``CUDA_VISIBLE_DEVICES`` for the workers, used in turns; empty if all workers see
        the same GPUs.
    """
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    if devices != 1 or count < 2:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    named = [name.strip() for name in visible.split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]
