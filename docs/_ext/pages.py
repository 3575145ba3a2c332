"""Write the pages that the extensions of the site make."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent


def write_page(name: str, text: str) -> None:
    """Write ``docs/<name>.md``; one that has not changed is left alone, or it is built anew."""
    path = DOCS / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
