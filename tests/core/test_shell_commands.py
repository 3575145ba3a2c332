"""The commands that the program gives to install what is missing."""

import re
import sys
from pathlib import Path

import pytest

from melanoma_lab.core import shell_commands
from melanoma_lab.core.shell_commands import (
    format_extra_install,
    format_lab_command,
    format_pip_install,
    format_program,
)

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment that is not activated; returns where its programs are."""
    python = tmp_path / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    return python.parent


def test_commands_work_whether_the_environment_is_activated_or_not(environment, monkeypatch):
    assert format_program("mlflow") == f"'{environment}/mlflow'"
    assert format_lab_command("sync", "a=b") == f"'{environment}/python' -m melanoma_lab sync a=b"
    monkeypatch.chdir(environment)  # a bare name would be looked up on PATH
    assert format_program("python") == f"'{environment}/python'"
    monkeypatch.chdir(environment.parent)
    assert format_program("mlflow") == "bin/mlflow"
    assert format_lab_command("sync") == "bin/python -m melanoma_lab sync"
    monkeypatch.setenv("PATH", str(environment))
    assert format_program("mlflow") == "mlflow"
    assert format_lab_command("sync") == "python -m melanoma_lab sync"


def test_packages_go_where_the_program_runs(environment, monkeypatch):
    monkeypatch.chdir(environment.parent)
    assert format_pip_install("flask>=3", "-q") == "bin/python -m pip install 'flask>=3' -q"
    monkeypatch.setattr(shell_commands.importlib.util, "find_spec", lambda name: None)
    assert format_pip_install("flask") == "uv pip install --python bin/python flask"


def test_an_extra_is_that_of_the_clone_or_of_the_installed_lab(environment, monkeypatch):
    monkeypatch.chdir(environment.parent)
    assert format_extra_install("demo") == f"bin/python -m pip install -e '{REPOSITORY}[demo]'"
    monkeypatch.chdir(REPOSITORY)
    assert format_extra_install("demo").endswith("/python' -m pip install -e '.[demo]'")
    monkeypatch.chdir(environment.parent)
    installed = environment.parent / "site-packages" / "melanoma_lab" / "core" / "x.py"
    monkeypatch.setattr(shell_commands, "__file__", str(installed))
    assert format_extra_install("demo") == "bin/python -m pip install 'melanoma-lab[demo]'"


def test_extras_that_the_program_names_are_declared():
    declared = (REPOSITORY / "pyproject.toml").read_text()
    named = {
        name
        for file in (REPOSITORY / "melanoma_lab").rglob("*.py")
        for name in re.findall(r"format_extra_install\(['\"](\w+)['\"]\)", file.read_text())
    }
    assert named == {"demo", "download", "export", "pretrained"}
    assert all(re.search(rf"^{name} = \[", declared, flags=re.MULTILINE) for name in named)
