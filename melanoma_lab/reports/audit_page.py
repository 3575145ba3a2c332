"""``audit.html``: the findings for the eye, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

import jinja2
import numpy as np
import pandas as pd

from melanoma_lab.audit.findings import Findings, Group
from melanoma_lab.audit.problems import Problem, ProblemKind
from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.formatting import format_percent
from melanoma_lab.data.split import SPLITS
from melanoma_lab.reports.thumbnails import make_thumbnail

TEMPLATE: Final = "audit.html.j2"
#: Shown of a problem at most: groups, images of a group, single images, lines of a list.
N_GROUPS, N_OF_GROUP, N_SINGLE, N_NOTES = 12, 6, 18, 12


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery.

    Attributes:
        image_id: of the image.
        name: of its file, without folder and extension.
        label: its class.
        hue: of the class, in degrees: another label is another colour.
        split: its part of the judged split; empty where it has none.
        note: what else is to be said of it.
        uri: the picture, as a data URI.
    """

    image_id: str
    name: str
    label: str
    hue: int
    split: str
    note: str
    uri: str


@dataclass(frozen=True)
class ProblemSection:
    """A problem and what is shown of it.

    Attributes:
        problem: the problem.
        groups: pictures side by side.
        n_more_groups: groups that are not shown.
        notes: lines of a list: name and note; empty where pictures carry the notes.
        n_more_notes: lines that are not shown.
    """

    problem: Problem
    groups: list[list[GalleryImage]]
    n_more_groups: int
    notes: list[tuple[str, str]]
    n_more_notes: int


@dataclass(frozen=True)
class ClassBar:
    """A row of the class balance: bars as wide as their share of the largest class.

    Attributes:
        name: of the class.
        total: images.
        parts: split, images and width in percent.
    """

    name: str
    total: int
    parts: list[tuple[str, int, float]]


def write_audit_page(
    path: Path,
    findings: Findings,
    problems: Sequence[Problem],
    images: pd.DataFrame,
    *,
    root: str,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        findings: of the audit.
        problems: what follows from them.
        images: the readable images with the columns image_id, path, label and judged.
        root: ``dataset.root`` as it was typed.
    """
    known = images.set_index("image_id")[["path", "label", "judged"]]
    classes = sorted({name for counts in findings.class_counts.values() for name in counts})
    hues = {name: round(360 * i / len(classes)) for i, name in enumerate(classes)}
    sources = sorted({name for row in findings.source_by_class.values() for name in row})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = format_percent
    text = environment.get_template(TEMPLATE).render(
        findings=findings,
        root=root,
        kinds=ProblemKind,
        sections=[_section(problem, known, hues) for problem in problems],
        bars=_bars(findings, classes),
        splits=[part for part in (*SPLITS, "none", "all") if part in findings.class_counts],
        sources=[] if sources == ["unknown"] else sources,
        n_classes=len(classes),
    )
    replace_file(path, text)


def _section(problem: Problem, known: pd.DataFrame, hues: dict[str, int]) -> ProblemSection:
    single = all(len(group) == 1 for group in problem.groups)
    shown = _spread(problem.groups, N_SINGLE if single else N_GROUPS)
    names = known.to_dict("index")
    uri = cache(make_thumbnail)

    def picture(image_id: str) -> GalleryImage:
        row = names[image_id]
        note = problem.notes.get(image_id, "")
        label = row["label"]
        name = PurePosixPath(image_id).stem
        return GalleryImage(
            image_id, name, label, hues[label], row["judged"], note, uri(row["path"])
        )

    groups = [
        [picture(image_id) for image_id in group[:N_OF_GROUP] if image_id in names]
        for group in shown
    ]
    notes = [] if problem.groups else list(problem.notes.items())
    return ProblemSection(
        problem=problem,
        groups=[group for group in groups if group],
        n_more_groups=len(problem.groups) - len(shown),
        notes=notes[:N_NOTES],
        n_more_notes=max(0, len(notes) - N_NOTES),
    )


def _spread(groups: list[Group], n: int) -> list[Group]:
    """At most n groups, evenly from the whole list, so that every class has a chance."""
    if len(groups) <= n:
        return groups
    return [groups[i] for i in np.linspace(0, len(groups) - 1, n).round().astype(int)]


def _bars(findings: Findings, classes: Sequence[str]) -> list[ClassBar]:
    counts = findings.class_counts
    totals = {name: sum(part.get(name, 0) for part in counts.values()) for name in classes}
    largest = max(totals.values())
    order = [part for part in (*SPLITS, "none", "all") if part in counts]
    return [
        ClassBar(
            name,
            totals[name],
            [
                (part, n, round(100 * n / largest, 2))
                for part in order
                if (n := counts[part].get(name, 0))
            ],
        )
        for name in sorted(classes, key=lambda name: -totals[name])
    ]
