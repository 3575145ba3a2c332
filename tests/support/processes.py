"""Commands of the lab, in this process, and Python in a process of its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase

from melanoma_lab.__main__ import main
from melanoma_lab.tracking.client import set_tracking_uri

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LAB = ("-m", "melanoma_lab")


def run_python(
    *words: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and hold what it writes.

    Args:
        *words: of its command line, such as ``*LAB, "audit"`` or ``"-c", script``.
        folder: where it runs; None: here.
        **environment: variables beside those of this process.
    """
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_command(
    *words: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the lab in this process, which spares it Python's and TensorFlow's start.

    Args:
        *words: of the command line, without the program.
        folder: where it runs; None: here.
        **environment: variables beside those of this process.
    """
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        _as_it_was(),
        chdir(folder or Path.cwd()),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["melanoma_lab", *words])
        patch.setenv("HYDRA_FULL_ERROR", "1")  # the command sets it
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What a command sets for its process is put back: Hydra, signals, where MLflow records."""
    composing, job, base = GlobalHydra.instance(), HydraConfig.instance(), VersionBase.instance()
    hydra, config, version = composing.hydra, job.cfg, base.version_base
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mlflow = sys.modules.get("mlflow")  # not loaded for this
    tracked = mlflow.get_tracking_uri() if mlflow and mlflow.is_tracking_uri_set() else None
    composing.hydra = job.cfg = None
    try:
        yield
    finally:
        composing.hydra, job.cfg, base.version_base = hydra, config, version
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if "mlflow" in sys.modules:
            set_tracking_uri(tracked)
