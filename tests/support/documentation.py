"""The pages of the documentation: their commands, their files, and the figures of kept studies."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
STUDIES = sorted(path.parent for path in (REPOSITORY / "experiments").glob("*/README.md"))
#: The pages that people write; generated ones have tests of their own.
PAGES = [
    REPOSITORY / "README.md",
    *sorted(
        path
        for path in (REPOSITORY / "docs").rglob("*.md")
        if not {"_build", "reference"} & {*path.parts}
        and ("results" not in path.parts or path.name == "index.md")  # the others are generated
    ),
    *sorted((REPOSITORY / "docs" / "tutorials").glob("*.ipynb")),
    *(study / "README.md" for study in STUDIES),
]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
#: Commands within a sentence; with dots they are no whole command.
INLINE = re.compile(r"`((?:python|\.venv/bin/python) -m melanoma_lab [^`]*)`")

#: Programs whose commands are recorded instead of run.
PROGRAMS = (
    *("python", "python3", ".venv/bin/python", ".venv/bin/uv", ".venv/bin/poe"),
    *("bash", "cd", "curl", "git", "mlflow", "rm", "source"),
)
WORD, COMMAND = "\x1f", "\x1e"  # separate words, and commands, in what bash prints


def read_page(page: Path) -> str:
    """Return the text of a page; of a notebook, that of its cells of Markdown."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        return "\n\n".join(texts)
    return text


def find_blocks(page: Path, *languages: str) -> list[str]:
    """Return the texts of a page's code blocks in the given languages; "" is that of none."""
    return [text for kind, text in BLOCK.findall(read_page(page)) if kind in languages]


def record_commands(block: str, folder: Path) -> list[list[str]]:
    """Let bash read a block of commands; return the words of each, running none of them.

    Loops, variables, quotes and continued lines are those of the shell. A block that uses a program
    that is not among ``PROGRAMS``, or is no text for bash, fails.

    Args:
        block: the text of a code block.
        folder: an empty folder, where bash runs.
    """
    stubs = [
        f"{name}() {{ {{ printf '%s{WORD}' '{name}' \"$@\"; printf '{COMMAND}'; }} >&3; }}"
        for name in PROGRAMS
    ]
    # `<this repository>` stands for an address.
    block = block.replace("<this repository>", "REPOSITORY")
    script = "\n".join(["set -eu", "PATH=/nowhere", *stubs, f"{{\n{block}\n}} 3>&1 >/dev/null"])
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{block}"
    return [command.split(WORD)[:-1] for command in done.stdout.split(COMMAND) if command]


def find_commands(page: Path, folder: Path) -> list[list[str]]:
    """Return the words of each command of a page, in blocks and within sentences."""
    inline = [text for text in INLINE.findall(read_page(page)) if "..." not in text]
    blocks = [*find_blocks(page, "bash", ""), *(text.replace("\n", " ") for text in inline)]
    return list(itertools.chain.from_iterable(record_commands(block, folder) for block in blocks))


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows: YAML and Python whose first comments say their name."""
    for block in find_blocks(page, "yaml", "python"):
        name = re.match(r"(?:#.*\n)?# (\S+\.(?:yaml|py))\n", block)
        if name:
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)


def read_comparison(study: Path) -> dict:
    """Return the kept ``comparison.json`` of a study."""
    return json.loads((study / "comparison.json").read_text())


def list_shown_figures(comparison: dict) -> tuple[set[str], set[str]]:
    """Return the figures of a kept study, as pages write them.

    Returns:
        Single ones, such as ``70.0 %`` and ``0.949``; and those with intervals, such as
        ``+6.7 (+2.7 to +10.7)`` and ``70.0 % (62.6 to 77.3)``.
    """
    single, intervals = set(), set()
    for arm in comparison["arms"].values():
        for metric in arm["metrics"].values():
            if metric["mean"] is None:
                continue
            single |= {f"{100 * metric['mean']:.1f} %", f"{metric['mean']:.3f}"}
            if metric["ci_low"] is not None:
                low, high = 100 * metric["ci_low"], 100 * metric["ci_high"]
                intervals.add(f"{100 * metric['mean']:.1f} % ({low:.1f} to {high:.1f})")
    for entry in comparison["comparisons"]:
        if entry["ci_low"] is not None:
            three = [entry[key] for key in ("difference", "ci_low", "ci_high")]
            single |= {f"{abs(value):.3f}" for value in three}
            point, low, high = (f"{100 * value:+.1f}" for value in three)
            intervals.add(f"{point} ({low} to {high})")
    return single, intervals
