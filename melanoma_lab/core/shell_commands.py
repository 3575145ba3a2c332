"""Command lines that work in the environment of this process, activated or not."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def format_program(name: str) -> str:
    """Return how to type a program of this environment.

    Args:
        name: ``python``, ``mlflow``, ...

    Returns:
        The name alone if the environment is activated, else a path, relative to the current folder
        if it lies below.
    """
    programs = Path(sys.executable).parent
    found = shutil.which("python")
    if found and Path(found).parent == programs:
        return name
    path = programs / name
    if path.is_relative_to(Path.cwd()) and programs != Path.cwd():
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))


def format_lab_command(*words: str) -> str:
    """Return a command of the lab, for a shell.

    Args:
        words: what follows ``python -m melanoma_lab``, quoted where that is needed.
    """
    return " ".join([format_program("python"), "-m", "melanoma_lab", *words])


def format_portable_command(*words: str) -> str:
    """Return a command of the lab that may be typed in any activated environment, for a shell.

    Args:
        words: what follows ``python -m melanoma_lab``, not quoted yet.
    """
    return " ".join(["python -m melanoma_lab", *map(shlex.quote, words)])


def format_pip_install(*words: str) -> str:
    """Return the command that installs packages where this program runs, for a shell.

    Args:
        words: requirements and options of ``pip install``.
    """
    if importlib.util.find_spec("pip") is None:
        pip = f"uv pip install --python {format_program('python')}"
    else:
        pip = f"{format_program('python')} -m pip install"
    return f"{pip} {shlex.join(words)}"


def format_extra_install(name: str) -> str:
    """Return the command that installs an optional group of dependencies, for a shell.

    Args:
        name: of the group, as in ``pyproject.toml``: ``demo``, ``export``, ...

    Returns:
        The command. No index of packages has the lab: if it is not installed, but found on a path,
        it is installed from its clone.
    """
    try:
        version("melanoma-lab")
    except PackageNotFoundError:
        return format_pip_install("-e", f"{Path(__file__).resolve().parent.parent.parent}[{name}]")
    return format_pip_install(f"melanoma-lab[{name}]")
