"""The model card as ``model_card.md`` and ``model_card.html``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from melanoma_lab.model_card.content import content
from melanoma_lab.model_card.facts import Facts
from melanoma_lab.reports.rendering import render_template, replace_file

PAGES: Final = ("model_card.md", "model_card.html")


def write_card(facts: Facts, folder: Path) -> None:
    """Write both pages into a folder, which is there."""
    said = content(facts)
    for name in PAGES:
        text = render_template("melanoma_lab.model_card", name, said)
        replace_file(folder / name, text.encode())
