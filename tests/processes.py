"""Python in a process of its own, with the lab of this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
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
