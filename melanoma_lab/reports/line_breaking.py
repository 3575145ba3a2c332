"""Line breaks in long names of arms, for pages, figures and terminals."""

from __future__ import annotations

import re

import markupsafe

#: The most lines of an arm's name in a figure.
MOST_LINES = 5
#: An arm's name with at least this many characters gets a line for each override in a terminal.
LONG = 25
#: Places for a break: after punctuation in overrides, not after that of a sentence or a number.
PLACES = r"[,=_](?=[^\s,=_])|(?<=[a-z])\.(?=[a-z])"


def wrap_arm_name(name: str, width: int = 24) -> str:
    """Wrap an arm's name to a few lines for Matplotlib; leave out the middle of a very long one.

    Args:
        name: the arm's name.
        width: the number of characters that a line should not exceed.
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
    """Return an arm's whole name for a terminal, with a line for each override if it is long."""
    return name if len(name) < LONG else re.sub(r",(?=[\w./@]+=)", ",\n ", name)


def mark_line_breaks(text: object) -> markupsafe.Markup:
    """Return a text as HTML that allows line breaks in names of arms and keys, not in numbers."""
    escaped = re.sub(PLACES, r"\g<0><wbr>", str(markupsafe.escape(text)))
    return markupsafe.Markup(escaped)  # noqa: S704 - escaped one line above


def join_with_no_break_spaces(text: object) -> str:
    """Join a value and its interval so that a line can break only between the two."""
    return re.sub(r" (?=%)|(?<=[\d,]) (?=[-+\u2212\d])", "\N{NO-BREAK SPACE}", str(text))
