"""A real MLflow tracking server in a process of its own, to be killed, frozen and restarted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import requests


class Server:
    """A tracking server on a free port; its runs are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command,
            cwd=self.folder,
            # Seven processes that wait for jobs would take longer to start than the server.
            env=os.environ
            | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(1200):
            with suppress(requests.RequestException):
                requests.get(f"{self.uri}/health", timeout=5).raise_for_status()
                return
            assert self._process.poll() is None, "the server ended"
            time.sleep(0.2)
        raise TimeoutError("the server does not answer")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
                self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
