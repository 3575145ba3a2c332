"""The environment that install.py makes, from interpreters of all kinds."""

import ast
import json
import os
import runpy
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile_python import HOSTILE, base_interpreter, hostile_python, site_packages

import install

REPOSITORY = Path(__file__).resolve().parent.parent
MAKE = "import install, pathlib, sys; install.make_environment(pathlib.Path(sys.argv[1]))"
SEES = f"""
import importlib.metadata, importlib.util, json, sys
print(json.dumps({{
    "modules": [n for n in {list(HOSTILE)} if importlib.util.find_spec(n)],
    "distributions": sorted({{d.name for d in importlib.metadata.distributions()}}),
}}))
"""


def ask(python, *words, folder=REPOSITORY, **variables):
    """What a fresh process in a folder prints; it inherits nothing of this environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MELANOMA"))}
    done = subprocess.run(
        [python, *words],
        env=inherited | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A Python full of hostile packages, and the environment that it made."""
    folder = tmp_path_factory.mktemp("machine")
    python, variables = hostile_python(folder / "hostile")
    ask(python, "-c", MAKE, folder / ".venv", **variables)
    return python, folder / ".venv", variables


def test_the_environment_sees_nothing_of_the_machine(machine):
    base, environment, variables = machine
    variables = variables | {"folder": environment.parent}  # the clone has a folder `tests`
    seen = json.loads(ask(base, "-c", SEES, **variables))
    assert seen == {"modules": list(HOSTILE), "distributions": sorted(HOSTILE)}  # so it could
    seen = json.loads(ask(install.environment_python(environment), "-c", SEES, **variables))
    assert seen["modules"] == []
    assert set(seen["distributions"]) <= {"pip", "setuptools"}
    assert "pip" in seen["distributions"]


def test_processes_of_the_environment_may_give_each_other_a_path(machine, tmp_path):
    _, environment, variables = machine
    (tmp_path / "handed_down.py").touch()
    code = (
        "import os, subprocess, sys\n"
        "assert 'PYTHONPATH' not in os.environ\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n"
        "subprocess.run([sys.executable, '-c', 'import handed_down'], check=True)\n"
    )
    ask(install.environment_python(environment), "-c", code, **variables)


def test_an_environment_that_works_is_kept(machine):
    base, environment, variables = machine
    (environment / "mine").touch()
    ask(base, "-c", MAKE, environment, **variables)
    assert (environment / "mine").exists()


@contextmanager
def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    yield
    path.write_text(text)


@contextmanager
def moved(path):
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    yield elsewhere
    elsewhere.rename(path)


def test_one_that_does_not_is_found_out(machine, tmp_path):
    base, environment, _ = machine
    packages = install.site_packages(environment)
    assert packages.is_relative_to(environment)
    assert install.site_packages(tmp_path / "none") is None
    settings = environment / "pyvenv.cfg"
    with changed(settings, "system-site-packages = false", "system-site-packages = true"):
        assert install.site_packages(environment) is None
    with moved(packages / "pip"):
        assert install.site_packages(environment) is None
    with moved(base.parent):  # the machine's Python is gone
        assert install.site_packages(environment) is None
    with moved(environment) as elsewhere:
        assert install.site_packages(elsewhere) is None
    assert install.site_packages(environment) == packages


def test_what_does_not_work_is_made_again(machine):
    base, environment, variables = machine
    (environment / "pyvenv.cfg").unlink()
    (environment / "mine").touch()
    assert "making" in ask(base, "-c", MAKE, environment, **variables)
    assert install.site_packages(environment)
    assert not (environment / "mine").exists()


@pytest.fixture
def bundled_pip():
    """The wheel of pip that comes with Python."""
    import ensurepip

    wheels = list(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not wheels:
        pytest.skip("this Python comes without a wheel of pip")
    return wheels[0]


def test_without_ensurepip_the_pip_of_the_machine_makes_it(tmp_path, bundled_pip):
    python = base_interpreter(tmp_path / "debian", without=("ensurepip",))
    zipfile.ZipFile(bundled_pip).extractall(site_packages(python)[0])
    ask(
        *(python, "-c", MAKE, tmp_path / ".venv"),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(bundled_pip.parent),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    assert install.site_packages(tmp_path / ".venv")


def test_without_either_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(install.InstallError, match="apt install python3-venv"):
        install.make_environment(tmp_path / ".venv")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_pin_is_a_version_with_its_hashes(lock):
    first, *hashes = install.pin(REPOSITORY / lock, "uv").splitlines()
    assert first.startswith("uv==0.13.")
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)
    assert len(hashes) > 5


def test_an_old_python_is_told_which_are_right(monkeypatch, capsys, tmp_path):
    program = REPOSITORY / "install.py"
    ast.parse(program.read_text(), feature_version=(3, 6))
    (tmp_path / "python3.12").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Python 3.11, 3.12 or 3.13 is needed" in said
    assert "python3.12 install.py" in said


def test_how_it_ends(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONHOME", "/usr")
    assert install.main([]) == 2
    assert "unset it" in capsys.readouterr().err
    monkeypatch.delenv("PYTHONHOME")
    for raised, status in ((OSError(28, "No space left"), 1), (KeyboardInterrupt(), 130)):

        def fail(environment, raised=raised):
            raise raised

        monkeypatch.setattr(install, "make_environment", fail)
        assert install.main([]) == status
        said = capsys.readouterr().err
        assert said.startswith("melanoma_lab: ")
        assert said.count("\n") == 1


def test_a_command_that_fails_is_shown(capfd):
    with pytest.raises(install.InstallError, match="this failed, for the reason above"):
        install.run(sys.executable, "-c", "raise SystemExit('no route to host')")
    assert "no route to host" in capfd.readouterr().err
