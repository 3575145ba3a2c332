"""The environment that install.py makes, from interpreters of all kinds."""

import ast
import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import pytest

import install
from tests.support.hostile_python import HOSTILE, base_interpreter, hostile_python, site_packages

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent
#: Makes an environment, with a lock of whatever pip there is, and no packages.
MAKE = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import install
from pathlib import Path
install.Environment(Path(sys.argv[1])).make(Path(sys.argv[2]))
"""
SEES = f"""
import importlib.metadata, importlib.util, json, sys
print(json.dumps({{
    "modules": [n for n in {list(HOSTILE)} if importlib.util.find_spec(n)],
    "distributions": sorted({{d.name for d in importlib.metadata.distributions()}}),
}}))
"""


def ask(python, *words, **variables):
    """What a fresh process prints; it inherits nothing of this environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MELANOMA"))}
    done = subprocess.run(
        [python, *words],
        env=inherited | variables,
        cwd="/",
        input="typed",
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
    environment = install.Environment(folder / ".venv")
    environment.folder.mkdir()
    (environment.folder / "of an old one").touch()
    without_old_copies = variables | {"PYTHONPATH": ""}  # install.py starts without PYTHONPATH
    ask(python, "-c", MAKE, environment.folder, "no lock", **without_old_copies)
    return python, environment, variables


@pytest.mark.slow
def test_the_environment_sees_nothing_of_the_machine(machine):
    base, environment, variables = machine
    packages = "".join(f"{folder}:" for folder in site_packages(base, **variables)).strip(":")
    seen = json.loads(ask(base, "-c", SEES, **variables | {"PYTHONPATH": packages}))
    assert seen == {"modules": list(HOSTILE), "distributions": sorted(HOSTILE)}  # so it could
    seen = json.loads(ask(environment.python, "-c", SEES, **variables))
    assert seen["modules"] == []
    assert set(seen["distributions"]) <= {"pip", "setuptools"}
    assert "pip" in seen["distributions"]
    assert "user = false" in (environment.folder / "pip.conf").read_text()


def test_nothing_on_pythonpath_hides_what_is_its_own(machine):
    """Python drops an entry of sys.path that PYTHONPATH has named already."""
    base, environment, variables = machine
    tell = "import sys; print(sys.path[1:])"  # after the folder where it was started, or ''
    own = ask(environment.python, "-c", tell)
    machines = json.loads(ask(base, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"))
    packages = next(path for path in own.split("'") if path.startswith(str(environment.folder)))
    for entries in (machines, [packages], machines[1:2], [str(REPOSITORY)], ["", "."], [""]):
        set_path = variables | {"PYTHONPATH": os.pathsep.join(entries)}
        assert ask(environment.python, "-c", tell, **set_path) == own


def test_it_starts_as_it_was_told(machine):
    _, environment, variables = machine
    code = (
        "import sys; print(sys.stdin.read(), sys.argv[1:], sys.flags.utf8_mode, sys.flags.isolated)"
    )
    for flags, last in ((("-X", "utf8"), "1 0"), (("-I",), "0 1"), (("-E",), "0 0")):
        told = ask(environment.python, *flags, "-c", code, "a b", "c", **variables)
        assert told.strip() == f"typed ['a b', 'c'] {last}"


def test_processes_of_the_environment_may_give_each_other_a_path(machine, tmp_path):
    _, environment, variables = machine
    (tmp_path / "handed_down.py").touch()
    given = os.pathsep.join([variables["PYTHONPATH"], str(tmp_path)])
    code = (
        "import os, subprocess, sys\n"
        "assert 'PYTHONPATH' not in os.environ\n"
        f"os.environ['PYTHONPATH'] = {given!r}\n"
        "child = 'import handed_down, importlib.util as u; assert not u.find_spec(\"numpy\")'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    ask(environment.python, "-c", code, **variables)


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


def test_an_environment_is_kept_only_if_it_is_whole_and_works(machine, tmp_path):
    base, environment, _ = machine
    assert not install.Environment(tmp_path / "none").is_usable()
    complete = environment.folder / "complete"
    assert not (environment.folder / "of an old one").exists()
    assert not environment.is_usable()  # made, but nothing was installed yet
    complete.write_text(str(environment.folder))
    assert environment.is_usable()
    settings = environment.folder / "pyvenv.cfg"
    with changed(settings, "system-site-packages = false", "system-site-packages = true"):
        assert not environment.is_usable()
    (pip,) = environment.folder.glob("lib/*/site-packages/pip")
    with moved(pip):
        assert not environment.is_usable()
    with moved(base.parent):  # the machine's Python is gone
        assert not environment.is_usable()
    with moved(environment.folder) as elsewhere:
        assert not install.Environment(elsewhere).is_usable()
    assert environment.is_usable()


@pytest.fixture
def started(monkeypatch):
    """The commands that installing starts; those that contain `fail` fail."""
    commands = []

    def run(*command):
        commands.append(command)
        if any(started.fail in word for word in command):
            raise install.InstallError("failed")

    started = run
    started.fail = "nothing"
    started.commands = commands
    monkeypatch.setattr(install, "run", run)
    return started


def test_an_interrupted_installation_is_not_taken_for_a_whole_one(machine, started):
    _, environment, _ = machine
    (environment.folder / "complete").write_text(str(environment.folder))
    started.fail = "--build-constraints"
    with pytest.raises(install.InstallError):
        environment.install(REPOSITORY / "requirements.lock", REPOSITORY)
    assert not environment.is_usable()
    started.fail = "nothing"
    environment.install(REPOSITORY / "requirements.lock", REPOSITORY)
    assert environment.is_usable()


def test_everything_comes_from_the_lock(machine, started):
    _, environment, _ = machine
    lock = REPOSITORY / "requirements-dev.lock"
    environment.install(lock, REPOSITORY)
    uv, packages, clone, _ = started.commands
    assert Path(uv[-1]).read_text() == install.pin(lock, "uv")
    assert packages[-2:] == ("-r", str(lock))
    assert all("--require-hashes" in command for command in (uv, packages))
    assert {"--no-deps", "--no-build-isolation", str(REPOSITORY)} <= set(clone)


@pytest.fixture
def bundled_pip():
    """The wheel of pip that comes with Python."""
    import ensurepip

    wheels = list(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not wheels:
        pytest.skip("this Python comes without a wheel of pip")
    return wheels[0]


@pytest.mark.slow
def test_without_ensurepip_the_pip_of_the_machine_makes_it(tmp_path, bundled_pip):
    python = base_interpreter(tmp_path / "debian", without=("ensurepip",))
    zipfile.ZipFile(bundled_pip).extractall(site_packages(python)[0])
    lock = tmp_path / "lock"
    digest = hashlib.sha256(bundled_pip.read_bytes()).hexdigest()
    lock.write_text(f"pip=={bundled_pip.name.split('-')[1]} \\\n    --hash=sha256:{digest}\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bundled_pip.parent)}
    ask(python, "-c", MAKE, tmp_path / ".venv", lock, **offline)
    made = install.Environment(tmp_path / ".venv")
    (made.folder / "complete").write_text(str(made.folder))
    assert made.is_usable()


def test_failures_of_python_itself_are_told_in_a_line(tmp_path, monkeypatch):
    lock = REPOSITORY / "requirements.lock"
    with pytest.raises(install.InstallError, match="PATH separator"):
        install.Environment(tmp_path / "a:b").make(lock)

    python = base_interpreter(tmp_path / "machine", without=("ensurepip",))
    stub = python.parent.parent / "lib" / f"python3.{sys.version_info[1]}" / "ensurepip"
    stub.mkdir()
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text("raise OSError(28, 'No space left on device')")
    told = ask(
        python,
        "-c",
        f"try:\n{indent(MAKE, ' ')}\nexcept Exception as e: print(e)",
        str(tmp_path / "b"),
        "no lock",
    )
    assert told == "ensurepip failed: OSError: [Errno 28] No space left on device\n"

    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    package = rf"python3\.{sys.version_info[1]}-venv"
    with pytest.raises(install.InstallError, match=rf"neither .*apt install {package}"):
        install.Environment(tmp_path / ".venv").make(lock)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_pin_is_a_version_with_its_hashes(lock):
    for package in ("pip", "uv"):
        first, *hashes = install.pin(REPOSITORY / lock, package).splitlines()
        assert re.fullmatch(rf"{package}==\d+\.\S+ \\", first)
        assert hashes
        assert all(line.strip().startswith("--hash=sha256:") for line in hashes)


def test_install_py_itself_runs_without_pythonpath(machine):
    base, _, variables = machine
    assert "--dev" in ask(base, REPOSITORY / "install.py", "--help", **variables)


def test_an_old_python_is_told_which_are_right(monkeypatch, capsys, tmp_path):
    program = REPOSITORY / "install.py"
    ast.parse(program.read_text(), feature_version=(3, 6))
    (tmp_path / "python3.12").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Python 3.11, 3.12 or 3.13 is needed" in said
    assert "Type: python3.12 install.py" in said


def test_how_it_ends(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONHOME", "/usr")
    assert install.main([]) == 2
    assert "unset it" in capsys.readouterr().err
    monkeypatch.delenv("PYTHONHOME")
    monkeypatch.setattr(install.Environment, "is_usable", lambda self: True)
    for raised, status in ((OSError(28, "No space left"), 1), (KeyboardInterrupt(), 130)):

        def fail(environment, lock, clone, raised=raised):
            raise raised

        monkeypatch.setattr(install.Environment, "install", fail)
        assert install.main([]) == status
        said = capsys.readouterr().err
        assert said.startswith("melanoma_lab: ")
        assert said.count("\n") == 1


def test_a_command_that_fails_is_shown_and_misleading_variables_are_not_passed_on(
    capfd, monkeypatch
):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    code = "import os; raise SystemExit('no route to host' + os.environ.get('PIP_TARGET', ''))"
    with pytest.raises(install.InstallError, match="this command failed, see its message above"):
        install.run(sys.executable, "-c", code)
    assert capfd.readouterr().err == "no route to host\n"
