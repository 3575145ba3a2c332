"""Where long names of arms are broken into lines, in pages, figures and terminals."""

from __future__ import annotations

import re

import markupsafe

#: Lines that an arm's name takes in a figure at most.
MOST_LINES = 5
#: Characters from which on an arm's name has a line for every change in a terminal.
LONG = 25
#: After the punctuation between and within overrides, not after that of a sentence or a number.
PLACES = r"[,=_](?=[^\s,=_])|(?<=[a-z])\.(?=[a-z])"


def wrap_arm_name(name: str, width: int = 24) -> str:
    """An arm's name in a few lines for matplotlib; the middle of a very long one is left out.

    Args:
        name: of the arm.
        width: characters that a line should have at most.
    """
    lines = [""]
    for part in re.findall(rf"[^,=._]{{1,{width}}}[,=._]*|[,=._]+", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        lines = [*lines[:half], "...", *lines[-half:]]
    return "\n".join(lines).replace("$", r"\$")  # a dollar sign would start a formula


def break_arm_name(name: str) -> str:
    """An arm's name for a terminal, whole, with a line for every change where it is long."""
    return name if len(name) < LONG else re.sub(r",(?=[\w./@]+=)", ",\n ", name)


def mark_line_breaks(text: object) -> markupsafe.Markup:
    """A text as HTML in which the names of arms and keys may be broken, and numbers may not."""
    escaped = re.sub(PLACES, r"\g<0><wbr>", str(markupsafe.escape(text)))
    return markupsafe.Markup(escaped)  # noqa: S704 - escaped one line above


def join_with_no_break_spaces(text: object) -> str:
    """A value and its interval so that a line ends between the two and nowhere else."""
    return re.sub(r" (?=%)|(?<=[\d,]) (?=[-+\u2212\d])", "\N{NO-BREAK SPACE}", str(text))
