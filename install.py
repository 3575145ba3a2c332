"""Make `.venv`, the environment of this clone, from a lock with hashes.

    python3 install.py          what the program needs
    python3 install.py --dev    what its tests need as well

Nothing of the machine's Python can be imported in it: neither the machine's packages nor the
user's, nor folders on PYTHONPATH. Run again, it adds what is missing. To undo it, delete `.venv`.
"""

import os
import sys

uses_pythonpath = os.name == "posix" and not sys.flags.ignore_environment
if __name__ == "__main__" and uses_pythonpath and os.environ.get("PYTHONPATH"):
    # PYTHONPATH may contain old copies of standard modules: restart without it before importing
    # more.
    os.execv(sys.executable, [sys.executable, "-E", *sys.argv])

import argparse
import importlib.util
import re
import shutil
import subprocess
import venv
from pathlib import Path

# Python 3.6 can parse this file, and so prints this message instead of a SyntaxError.
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    names = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    print(
        f"melanoma_lab: Python 3.11, 3.12 or 3.13 is needed; this is "
        f"{sys.version.split()[0]} ({sys.executable}). "
        f"Type: {names[0] if names else 'python3.12'} install.py",
        file=sys.stderr,
    )
    sys.exit(2)

CLONE = Path(__file__).resolve().parent

#: Environment variables that would install packages elsewhere, or others than the lock names.
MISLEADING = {
    *("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON"),
    *("UV_REQUIRE_HASHES", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE_NEWER"),
}

#: The environment's settings of pip: what its user installs later goes into the environment.
PIP_SETTINGS = "[install]\nuser = false\ntarget =\nprefix =\nroot =\n"

#: A module of the environment that is imported whenever its Python starts (by a .pth file). A venv
#: excludes the packages of the machine and of the user, but not those on PYTHONPATH. They are on
#: sys.path by then, so Python is restarted without them.
ISOLATION = '''\
"""Leave the machine's PYTHONPATH out of this environment. Written by install.py."""

import os
import sys

# What was left out, for the processes that this one starts: other folders that it gives them count.
LEFT_OUT = "MELANOMA_LAB_PYTHONPATH"

given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
left_out = os.environ.setdefault(LEFT_OUT, os.pathsep.join(given)).split(os.pathsep)
kept = [folder for folder in given if folder and folder not in left_out]
if "PYTHONPATH" in os.environ and kept != given:
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    if not kept:
        del os.environ["PYTHONPATH"]
    if os.name == "posix" and not sys.flags.ignore_environment:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
'''


class InstallError(Exception):
    """The environment could not be made; the text says what to do."""


class Environment:
    """A virtual environment of one clone.

    Attributes:
        folder: path of the environment, which may not exist yet.
        python: path of the environment's Python.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._complete = folder / "complete"

    def is_usable(self) -> bool:
        """Return whether the environment can be reused.

        It cannot if an installation was interrupted (uv then takes a package for installed that
        lacks files), if the environment was moved, if its Python is missing or not supported, if it
        has no pip, or if it includes the machine's packages.
        """
        code = "import pip, sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13)"
        try:
            settings = (self.folder / "pyvenv.cfg").read_text()
            made_here = self._complete.read_text() == str(self.folder)
            subprocess.run([str(self.python), "-I", "-c", code], capture_output=True, check=True)
        except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
            return False
        return made_here and bool(re.search(r"system-site-packages\s*=\s*false", settings))

    def make(self, lock: Path) -> None:
        """Make an isolated environment with pip; delete what is in its folder.

        Args:
            lock: the lock that pins pip, which the machine's pip installs if there is no ensurepip.

        Raises:
            InstallError: Python, ensurepip or pip failed.
        """
        # Debian and Ubuntu have ensurepip in a separate package; the machine's pip can replace it.
        has_ensurepip = importlib.util.find_spec("ensurepip") is not None
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if not has_ensurepip and importlib.util.find_spec("pip") is None:
            raise InstallError(
                f"{sys.executable} has neither ensurepip nor pip. Debian, Ubuntu: "
                f"apt install {package}"
            )
        builder = venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=has_ensurepip)
        try:
            builder.create(self.folder)
        except subprocess.CalledProcessError as error:  # ensurepip
            lines = error.output.decode(errors="replace").strip().splitlines()
            raise InstallError(f"ensurepip failed: {lines[-1] if lines else error}") from error
        except ValueError as error:  # a path that cannot be on PATH
            raise InstallError(str(error)) from error
        if not has_ensurepip:
            try:
                self._install_pinned("pip", lock, sys.executable, "--python", str(self.python))
            except InstallError as error:
                raise InstallError(f"{error}. Debian, Ubuntu: apt install {package}") from error
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        result = subprocess.run(
            [str(self.python), "-I", "-c", code], capture_output=True, text=True, check=True
        )
        packages = Path(result.stdout.strip())
        (packages / "_melanoma_lab_isolation.py").write_text(ISOLATION)
        (packages / "_melanoma_lab_isolation.pth").write_text("import _melanoma_lab_isolation\n")
        (self.folder / ("pip.ini" if os.name == "nt" else "pip.conf")).write_text(PIP_SETTINGS)

    def install(self, lock: Path, clone: Path) -> None:
        """Install the packages of a lock, and a clone itself as an editable package.

        Args:
            lock: the lock that pins every package with its hashes, including uv, which installs
                the others.
            clone: the folder of pyproject.toml.

        Raises:
            InstallError: pip or uv failed.
        """
        self._complete.unlink(missing_ok=True)
        uv = self.python.with_name("uv.exe" if os.name == "nt" else "uv")
        version = pin(lock, "uv").split()[0].replace("==", " ")
        if not uv.exists() or version not in subprocess.check_output([str(uv), "-V"], text=True):
            print("installing uv, which installs the rest", flush=True)
            self._install_pinned("uv", lock, self.python)
        pip = (str(uv), "pip", "install", "--python", str(self.python))
        hashed = ("--require-hashes", "--build-constraints", str(lock), "-r", str(lock))
        # With this variable no process stores compiled modules, and each would compile TensorFlow.
        compiled = ["--compile-bytecode"] if os.environ.get("PYTHONDONTWRITEBYTECODE") else []
        run(*pip, *compiled, *hashed)
        run(*pip, "--quiet", "--no-deps", "--no-build-isolation", "-e", str(clone))
        run(
            str(self.python), "-I", "-c", "import melanoma_lab"
        )  # fails if settings sent it elsewhere
        self._complete.write_text(str(self.folder))

    def _install_pinned(self, package: str, lock: Path, *pip_of: "str | Path") -> None:
        """Install one package of a lock.

        Args:
            package: name of the package.
            lock: the lock that pins it.
            pip_of: a Python with pip, and options of its pip.
        """
        pinned = self.folder / f"{package}.txt"
        pinned.write_text(pin(lock, package))
        python, *options = map(str, pip_of)
        quiet = ("--disable-pip-version-check", "--quiet", "--no-user")
        hashed = ("--require-hashes", "-r", str(pinned))
        run(python, "-m", "pip", *options, "install", *quiet, *hashed)


def run(*command: str) -> None:
    """Run a command without the variables ``MISLEADING``, and show its output.

    Raises:
        InstallError: the command failed.
    """
    variables = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    if subprocess.run(command, env=variables, check=False).returncode:
        raise InstallError(f"this command failed, see its message above: {' '.join(command)}")


def pin(lock: Path, package: str) -> str:
    """Return the lines of a lock that pin one package with its hashes."""
    (lines,) = re.findall(
        rf"^{re.escape(package)}==[^\n]*\n(?: +--hash=[^\n]*\n)+", lock.read_text(), re.MULTILINE
    )
    return str(lines)


def main(arguments: "list[str]") -> int:
    """Run the command line.

    Returns:
        The exit status: 0 on success, 1 if an installation failed, 2 if the environment variable
        PYTHONHOME is set, 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(
        description="Make .venv, the environment of this clone, from a lock with hashes."
    )
    parser.add_argument("--dev", action="store_true", help="install what the tests need as well")
    options = parser.parse_args(arguments)
    if "PYTHONHOME" in os.environ:
        print("melanoma_lab: no environment works with PYTHONHOME set: unset it", file=sys.stderr)
        return 2
    lock = CLONE / ("requirements-dev.lock" if options.dev else "requirements.lock")
    environment = Environment(CLONE / ".venv")
    try:
        if not environment.is_usable():
            print(f"making {environment.folder} with Python {sys.version.split()[0]}", flush=True)
            environment.make(lock)
        environment.install(lock, CLONE)
    except (InstallError, OSError) as error:
        print(f"melanoma_lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("melanoma_lab: interrupted; type the same command to go on", file=sys.stderr)
        return 130
    print(f"ready: {environment.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
