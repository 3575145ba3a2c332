"""Make `.venv`, the environment of this clone, from a lock with hashes.

    python3 install.py          what the program needs
    python3 install.py --dev    what its tests need as well

Nothing of the machine's Python can be imported there: neither its own packages nor the user's,
nor what PYTHONPATH names. Typed again, it adds what is missing. To undo it, delete `.venv`.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

# Python 3.6 can read this file up to here, and says this instead of a SyntaxError or a traceback.
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    names = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    print(
        f"melanoma_lab: Python 3.11, 3.12 or 3.13 is needed; this is "
        f"{sys.version.split()[0]} ({sys.executable}). "
        f"Start this file with one of these: {names[0] if names else 'python3.12'} install.py",
        file=sys.stderr,
    )
    sys.exit(2)

CLONE = Path(__file__).resolve().parent
ENVIRONMENT = CLONE / ".venv"

#: A module of the environment, imported whenever its Python starts (by a .pth file). A venv leaves
#: the packages of the machine and of the user out by itself, but not those on PYTHONPATH.
ISOLATION = '''\
"""Leave the machine's PYTHONPATH out of this environment. Written by install.py."""

import os
import sys

# Set for the processes that this one starts: a PYTHONPATH that it gives them counts.
MARK = "MELANOMA_LAB_ENVIRONMENT"

if os.environ.get(MARK) != sys.prefix:
    os.environ[MARK] = sys.prefix
    os.environ.pop("PYTHONPATH", None)
    library = "python{}{}.zip".format(*sys.version_info)
    names = [os.path.basename(path) for path in sys.path]
    if library in names:  # the first entry that does not come from PYTHONPATH
        del sys.path[: names.index(library)]
'''


class InstallError(Exception):
    """The environment could not be made; the text says what to do."""


def environment_python(environment: Path) -> Path:
    """Return the path of an environment's Python, whether it is there or not."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*words: "str | Path") -> None:
    """Run a command without PYTHONPATH; what it prints is shown.

    Raises:
        InstallError: it failed.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(word) for word in words]
    if subprocess.run(command, env=variables, check=False).returncode:
        raise InstallError(f"this failed, for the reason above: {' '.join(command)}")


def site_packages(environment: Path) -> "Path | None":
    """Return where an environment keeps its packages.

    Returns:
        None if the environment has to be made again: it is not there or not whole, was moved, is
        of a Python that is gone or not supported, has no pip, or shows the machine's packages.
    """
    code = (
        "import pip, sys, sysconfig; assert (3, 11) <= sys.version_info[:2] <= (3, 13); "
        "print(sysconfig.get_path('purelib'))"
    )
    try:
        settings = (environment / "pyvenv.cfg").read_text()
        activate = (environment_python(environment).parent / "activate").read_text()
        answer = subprocess.run(
            [str(environment_python(environment)), "-I", "-c", code],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None
    isolated = re.search(r"include-system-site-packages\s*=\s*false", settings)
    return Path(answer.stdout.strip()) if isolated and str(environment) in activate else None


def make_environment(environment: Path) -> Path:
    """Make an environment with pip, unless a usable one is there, and isolate it.

    Args:
        environment: its folder; emptied if what it holds is not usable.

    Returns:
        Where it keeps its packages.

    Raises:
        InstallError: neither ensurepip nor pip is there.
    """
    packages = site_packages(environment)
    if packages is None:
        print(f"making {environment} with Python {sys.version.split()[0]}", flush=True)
        # Debian and Ubuntu leave ensurepip to python3-venv; the machine's pip does as well.
        has_ensurepip = importlib.util.find_spec("ensurepip") is not None
        if not has_ensurepip and importlib.util.find_spec("pip") is None:
            raise InstallError(
                f"{sys.executable} has neither pip nor ensurepip. "
                "Debian, Ubuntu: apt install python3-venv"
            )
        venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=has_ensurepip).create(
            environment
        )
        if not has_ensurepip:
            into = ("--python", environment_python(environment), "install", "--quiet", "--no-user")
            run(sys.executable, "-m", "pip", *into, "pip")
        packages = site_packages(environment)
        if packages is None:
            raise InstallError(f"{environment} does not work: {sys.executable} could not make it")
    (packages / "_melanoma_lab_isolation.py").write_text(ISOLATION)
    (packages / "_melanoma_lab_isolation.pth").write_text("import _melanoma_lab_isolation\n")
    return packages


def pin(lock: Path, name: str) -> str:
    """Return the lines of a lock that pin one package, with its hashes."""
    (lines,) = re.findall(
        rf"^{re.escape(name)}==[^\n]*\n(?: +--hash=[^\n]*\n)+", lock.read_text(), re.MULTILINE
    )
    return str(lines)


def install(environment: Path, lock: Path, clone: Path) -> None:
    """Install the packages of a lock, and the clone itself as an editable package.

    Args:
        environment: as `make_environment` makes it.
        lock: pins every package with its hashes, uv among them, which installs the others.
        clone: the folder of pyproject.toml.

    Raises:
        InstallError: pip or uv failed.
    """
    python = environment_python(environment)
    uv_pin = environment / "uv.txt"
    if not uv_pin.is_file() or uv_pin.read_text() != pin(lock, "uv"):
        print("installing uv, which installs the rest", flush=True)
        wanted = environment / "uv.txt.part"
        wanted.write_text(pin(lock, "uv"))
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
        run(*pip, "--no-user", "--require-hashes", "-r", wanted)
        wanted.replace(uv_pin)
    uv = (python.with_name("uv"), "pip", "install", "--python", python)
    run(*uv, "--require-hashes", "--build-constraints", lock, "--compile-bytecode", "-r", lock)
    run(*uv, "--quiet", "--no-deps", "--no-build-isolation", "-e", clone)


def main(arguments: list[str]) -> int:
    """Run the command line.

    Returns:
        The exit status: 0, 1 if an installation failed, 2 for a mistake, 130 if interrupted.
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
    try:
        make_environment(ENVIRONMENT)
        install(ENVIRONMENT, lock, CLONE)
    except (InstallError, OSError) as error:
        print(f"melanoma_lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("melanoma_lab: interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"ready: {ENVIRONMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
