"""The pages of the documentation, and the commands that they show."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
#: Every page that a reader is given commands by, built pages aside.
PAGES = sorted(
    path
    for path in (
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "experiments").glob("*/README.md"),
    )
    if "_build" not in path.parts and "kept" not in path.parts
)
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)

#: Functions of the same names record the words of these commands instead of running them.
PROGRAMS = ("python", "python3", ".venv/bin/python", ".venv/bin/uv", ".venv/bin/poe", "git", "mlflow",
            "curl", "source", "cd", "rm", "bash")  # fmt: skip
#: What separates words and commands in a record.
WORD, COMMAND = "\x1f", "\x1e"


def find_blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in the given languages."""
    return [text for kind, text in BLOCKS.findall(page.read_text()) if kind in languages]


def record_commands(block: str, folder: Path) -> list[list[str]]:
    """Let bash read a block of commands; return the words of each, running none of them.

    Loops, variables, quotes and continued lines are those of the shell. The block fails if it uses
    a program that is not among ``PROGRAMS``, or if it is no correct text for bash.

    Args:
        block: the text of a code block.
        folder: an empty folder in which bash runs.
    """
    record = f'{{ printf "%s{WORD}" "$NAME" "$@"; printf "{COMMAND}"; }} >&3'
    stubs = "\n".join(
        f"{name}() {{ {record.replace('$NAME', name)}; }}" for name in PROGRAMS
    )
    script = f"set -eu\nPATH=/nowhere\n{stubs}\n{{\n{block}\n}} 3>&1 >/dev/null\n"
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{block}"
    return [line.split(WORD)[:-1] for line in done.stdout.split(COMMAND) if line]


def find_lab_commands(page: Path, folder: Path) -> list[list[str]]:
    """Return the words after ``python -m melanoma_lab`` of each such command of a page."""
    commands = itertools.chain.from_iterable(
        record_commands(block, folder) for block in find_blocks(page, "bash")
    )
    return [words[3:] for words in commands if words[1:3] == ["-m", "melanoma_lab"]]
