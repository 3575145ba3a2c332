"""The model card as ``model_card.md`` and ``model_card.html``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.reports.model_card.card_data import ModelCardData
from melanoma_lab.reports.model_card.content import build_card_content
from melanoma_lab.reports.rendering import render_template

PAGES: Final = ("model_card.md", "model_card.html")


def write_model_card(facts: ModelCardData, folder: Path) -> None:
    """Write both pages into a folder, which is there."""
    said = build_card_content(facts)
    for name in PAGES:
        text = render_template("melanoma_lab.reports.model_card", name, said)
        replace_file(folder / name, text)
