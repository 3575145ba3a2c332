"""The commands that install what is missing, into the environment of this process."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def pip_install(*words: str) -> str:
    """Return the command that installs packages where this program runs.

    Args:
        words: requirements and options of ``pip install``.

    Returns:
        A line for a shell: with ``python`` if that is the Python of this process, else its path.
    """
    python = sys.executable
    if shutil.which("python") == python:
        python = "python"
    elif Path(python).is_relative_to(Path.cwd()):
        python = str(Path(python).relative_to(Path.cwd()))
    return shlex.join([python, "-m", "pip", "install", *words])


def install_extra(name: str) -> str:
    """Return the command that installs an optional group of dependencies.

    Args:
        name: of the group, as in ``pyproject.toml``: ``demo``, ``export``, ...

    Returns:
        A line for a shell. No index of packages has the lab: one that is not installed, but found
        on a path, is installed from its clone.
    """
    try:
        version("melanoma-lab")
    except PackageNotFoundError:
        return pip_install("-e", f"{Path(__file__).resolve().parent.parent}[{name}]")
    return pip_install(f"melanoma-lab[{name}]")
