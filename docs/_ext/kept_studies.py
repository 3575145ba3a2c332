"""Pages of the kept studies, made from ``experiments/<study>/`` when the site is built.

A study's own page, its README.md, becomes ``results/<study>``, with its figure of balanced
accuracy. Its report becomes ``results/reports/<study>-report``, and that of a search
``<study>-search``. Other pages link to README.md, which a code host shows; on the site these links
lead to the page made from it.
"""

from __future__ import annotations

import re
from typing import Any

from pages import DOCS, write_page
from sphinx.application import Sphinx

EXPERIMENTS = DOCS.parent / "experiments"
FIGURE = "figures/difference_balanced_accuracy.png"


def write_pages(_app: Sphinx) -> None:
    """Write the pages of all studies into ``results/``; git ignores them."""
    for page in sorted(EXPERIMENTS.glob("*/README.md")):
        study = page.parent
        place = f"../../experiments/{study.name}"
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"\]\(\.\./([\w-]+)/README\.md\)", r"](\1.md)", text)
        text = text.replace("](conf/", f"]({place}/conf/")
        if (study / FIGURE).is_file():
            text += f"\n![Differences in balanced accuracy with 95 % intervals]({place}/{FIGURE})\n"
        for report, name in (("report.md", "report"), ("tuned/report.md", "search")):
            if (study / report).is_file():
                text = text.replace(f"]({report})", f"](reports/{study.name}-{name}.md)")
                shown = (study / report).read_text(encoding="utf-8")
                folder = f"{place}/{report}".removesuffix("/report.md")
                shown = shown.replace("](figures/", f"](../{folder}/figures/")
                write_page(
                    f"results/reports/{study.name}-{name}", f"---\norphan: true\n---\n\n{shown}"
                )
        write_page(f"results/{study.name}", text)


def lead_to_pages(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Let links to a study's README.md lead to its page."""
    pattern = r"\]\((?:\.\./)+experiments/([\w-]+)/README\.md\)"
    source[0] = re.sub(pattern, r"](/results/\1.md)", source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    # Before Sphinx looks for documents, which it does after this event.
    app.connect("builder-inited", write_pages)
    app.connect("source-read", lead_to_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
