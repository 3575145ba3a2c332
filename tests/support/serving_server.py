"""A real ``mlflow models serve`` in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests


class Serving:
    """What answers to a model's folder on a free port of this machine."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self.log = log
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model)]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                # The server is started by the command `uvicorn`, which lies beside this Python.
                env=os.environ
                | {
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(1200):
            with suppress(requests.RequestException):
                requests.get(f"{self.uri}/ping", timeout=5).raise_for_status()
                return
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.25)
        raise TimeoutError(self.log.read_text())

    def post(self, body: Any, content_type: str = "application/json") -> requests.Response:
        """Ask for an answer; the body is sent as it is where it is text or bytes."""
        sent = {"data": body} if isinstance(body, str | bytes) else {"json": body}
        return requests.post(
            f"{self.uri}/invocations",
            headers={"Content-Type": content_type},
            timeout=120,
            **sent,
        )

    def stop(self) -> None:
        """End it and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
