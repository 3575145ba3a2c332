"""A Python like the machine's, full of packages that break whatever sees them.

``python3 tests/support/hostile_python.py FOLDER`` makes one for ``.ci/run``: ``FOLDER/bin/python3``
has them, and so do ``FOLDER/user`` (for PYTHONUSERBASE) and ``FOLDER/path`` (for PYTHONPATH).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

#: What breaks Python itself; only PYTHONPATH can put it before the standard library.
OLD_COPY = 'raise ImportError("an old copy of a standard module")\n'

#: Modules that must not be seen -> their code.
HOSTILE = {
    "numpy": '__version__ = "1.16.0"\nraise ImportError("the old numpy of the machine")\n',
    "tests": 'raise ImportError("the package `tests` of the machine")\n',
    "hostile_plugin": (
        "import warnings\n\n\ndef pytest_configure(config):\n"
        '    warnings.warn("the pytest plugin of the machine", UserWarning)\n'
    ),
}


def base_interpreter(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Make a Python with the standard library of this one and packages of its own: none.

    Args:
        folder: where to; it is made.
        without: names in the standard library that it lacks.

    Returns:
        Its program, ``folder/bin/python3``.
    """
    library = Path(sysconfig.get_path("stdlib"))
    own = folder / "lib" / library.name
    for made in (folder / "bin", own / "site-packages"):
        made.mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name not in {"site-packages", "dist-packages", *without}:
            (own / entry.name).symlink_to(entry)
    for shared in Path(str(sysconfig.get_config_var("LIBDIR"))).glob("libpython*"):
        (folder / "lib" / shared.name).symlink_to(shared)
    python = folder / "bin" / "python3"
    shutil.copy2(Path(sys.executable).resolve(), python)
    return python


def site_packages(python: Path, **variables: str) -> list[Path]:
    """Return where an interpreter looks for packages: the machine's folder, then the user's."""
    code = "import site; print(site.getsitepackages()[0], site.getusersitepackages(), sep='\\n')"
    answer = subprocess.run(
        [python, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in answer.stdout.splitlines()]


def hostile_python(folder: Path) -> tuple[Path, dict[str, str]]:
    """Make a Python whose packages break whatever sees them.

    Args:
        folder: where to; it is made.

    Returns:
        Its program, and the variables with which the user's and other packages are as bad.
    """
    python = base_interpreter(folder)
    variables = {"PYTHONUSERBASE": str(folder / "user"), "PYTHONPATH": str(folder / "path")}
    for packages in (*site_packages(python, **variables), folder / "path"):
        for name, code in HOSTILE.items():
            (packages / name).mkdir(parents=True)
            (packages / name / "__init__.py").write_text(code)
            metadata = packages / f"{name}-1.16.0.dist-info"
            metadata.mkdir()
            metadata.joinpath("METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.16.0\n"
            )
        plugin = packages / "hostile_plugin-1.16.0.dist-info" / "entry_points.txt"
        plugin.write_text("[pytest11]\nhostile = hostile_plugin\n")
    (folder / "path" / "pathlib.py").write_text(OLD_COPY)
    return python, variables


if __name__ == "__main__":
    hostile_python(Path(sys.argv[1]))
