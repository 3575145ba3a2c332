"""Command lines that work in this process's Python environment, whether activated or not."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path


def format_program(name: str) -> str:
    """Return the shell word that starts a program of this environment.

    Args:
        name: name of the program: ``python``, ``mlflow``, ...

    Returns:
        The name alone if the environment is activated, else the program's path, relative if it is
        below the current folder.
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
        words: the words after ``python -m melanoma_lab``, already quoted for the shell if needed.
    """
    return " ".join([format_program("python"), "-m", "melanoma_lab", *words])


def format_portable_command(*words: str) -> str:
    """Return a command of the lab for the shell of any activated environment.

    Args:
        words: the words after ``python -m melanoma_lab``, not yet quoted for the shell.
    """
    return " ".join(["python -m melanoma_lab", *map(shlex.quote, words)])


def format_pip_install(*words: str) -> str:
    """Return the shell command that installs packages into this process's environment."""
    if importlib.util.find_spec("pip") is None:
        pip = f"uv pip install --python {format_program('python')}"
    else:
        pip = f"{format_program('python')} -m pip install"
    return f"{pip} {shlex.join(words)}"


def format_extra_install(name: str) -> str:
    """Return the shell command that installs an optional group of dependencies.

    Args:
        name: name of the group in ``pyproject.toml``: ``demo``, ``export``, ...

    Returns:
        The command. In a clone it installs the clone itself with the group, as the documentation
        does: no package index has the lab.
    """
    clone = Path(__file__).resolve().parent.parent.parent
    if not (clone / "pyproject.toml").is_file():
        return format_pip_install(f"melanoma-lab[{name}]")
    folder = "." if clone == Path.cwd() else str(clone)
    return format_pip_install("-e", f"{folder}[{name}]")
