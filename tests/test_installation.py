"""The commands that the program gives to install what is missing."""

import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from melanoma_lab import installation
from melanoma_lab.installation import install_extra, pip_install

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment that is not activated, and what runs in it."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/usr/bin")
    return python


def test_packages_go_where_the_program_runs(environment, tmp_path, monkeypatch):
    assert pip_install("flask>=3", "-q") == f"{environment} -m pip install 'flask>=3' -q"
    monkeypatch.chdir(tmp_path)
    assert pip_install("flask") == "bin/python -m pip install flask"
    monkeypatch.setenv("PATH", str(environment.parent))  # activated
    assert pip_install("flask") == "python -m pip install flask"


def test_an_extra_is_that_of_the_installed_lab_or_of_the_clone(environment, monkeypatch):
    monkeypatch.setattr(installation, "version", lambda name: "1.0")
    assert install_extra("demo") == f"{environment} -m pip install 'melanoma-lab[demo]'"

    def fail(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "version", fail)
    assert install_extra("demo") == f"{environment} -m pip install -e '{REPOSITORY}[demo]'"


def test_extras_that_the_program_names_are_declared():
    declared = (REPOSITORY / "pyproject.toml").read_text()
    named = {
        name
        for file in (REPOSITORY / "melanoma_lab").rglob("*.py")
        for name in re.findall(r"install_extra\(['\"](\w+)['\"]\)", file.read_text())
    }
    assert named == {"demo", "download", "export", "pretrained"}
    assert all(re.search(rf"^{name} = \[", declared, flags=re.MULTILINE) for name in named)
