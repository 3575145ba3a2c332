"""``audit.html``: the findings of an audit with pictures, in a single file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd

from melanoma_lab.audit.findings import Findings, Group
from melanoma_lab.audit.problems import Problem, ProblemKind
from melanoma_lab.core.files import replace_file
from melanoma_lab.data.decoding import read_picture
from melanoma_lab.data.split import SPLITS
from melanoma_lab.reports.rendering import encode_jpeg_uri, render_template

PAGE: Final = "audit.html"
#: The most to show of a problem: groups, images of a group, single images, lines of a list.
N_GROUPS, N_OF_GROUP, N_SINGLE, N_NOTES = 12, 6, 18, 12
#: Longest side of a picture in pixels; it is shown at half of it, to be sharp on any screen.
MAX_SIDE: Final = 208


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery, with the name of its file without folder and extension.

    Each class has a hue of its own, in degrees. ``split`` is the image's part in the audited split;
    it and the note may be empty. ``uri`` is the picture as a data URI.
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
    """A section of the page with one problem.

    ``groups`` are shown as pictures next to each other. ``notes`` are lines of name and note;
    they are empty if notes are shown with pictures.
    """

    problem: Problem
    groups: list[list[GalleryImage]]
    n_more_groups: int
    notes: list[tuple[str, str]]
    n_more_notes: int


@dataclass(frozen=True)
class ClassBar:
    """A row of the chart of class sizes; the width of a bar is relative to the largest class.

    ``parts`` are split, number of images and width in per cent, for each split.
    """

    name: str
    total: int
    parts: list[tuple[str, int, float]]


def write_audit_page(
    path: Path, findings: Findings, problems: Sequence[Problem], images: pd.DataFrame, *, root: str
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        findings: the findings of the audit.
        problems: the problems that follow from the findings.
        images: table of the readable images, with the columns image_id, path, label and judged
            (the part in the audited split).
        root: ``dataset.root`` as the user typed it.
    """
    known = images.set_index("image_id")[["path", "label", "judged"]].to_dict("index")
    classes = sorted({name for counts in findings.class_counts.values() for name in counts})
    hues = {name: round(360 * i / len(classes)) for i, name in enumerate(classes)}
    sources = sorted({name for row in findings.source_by_class.values() for name in row})
    parts = [part for part in (*SPLITS, "none", "all") if part in findings.class_counts]
    content = {
        "findings": findings,
        "root": root,
        "kinds": ProblemKind,
        "sections": [_build_section(problem, known, hues) for problem in problems],
        "bars": _build_bars(findings, classes, parts),
        "splits": parts,
        "sources": [] if sources == ["unknown"] else sources,
        "n_classes": len(classes),
    }
    replace_file(path, render_template("melanoma_lab.reports", PAGE, content))


def _build_section(
    problem: Problem, known: Mapping[Any, Any], hues: Mapping[str, int]
) -> ProblemSection:
    single = all(len(group) == 1 for group in problem.groups)
    shown = _select_evenly(problem.groups, N_SINGLE if single else N_GROUPS)
    uri = cache(_make_thumbnail)

    def picture(image_id: str) -> GalleryImage:
        row, note = known[image_id], problem.notes.get(image_id, "")
        label, name = row["label"], PurePosixPath(image_id).stem
        return GalleryImage(
            image_id, name, label, hues[label], row["judged"], note, uri(row["path"])
        )

    groups = [
        [picture(image_id) for image_id in group[:N_OF_GROUP] if image_id in known]
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


def _select_evenly(groups: list[Group], n: int) -> list[Group]:
    """Return at most n groups, evenly spaced in the list, so that no class is favoured."""
    if len(groups) <= n:
        return groups
    return [groups[i] for i in np.linspace(0, len(groups) - 1, n).round().astype(int)]


def _build_bars(
    findings: Findings, classes: Sequence[str], splits: Sequence[str]
) -> list[ClassBar]:
    """Return the rows of the chart of class sizes, largest class first."""
    counts = findings.class_counts
    totals = {name: sum(part.get(name, 0) for part in counts.values()) for name in classes}
    largest = max(totals.values())
    bars = []
    for name in sorted(classes, key=lambda name: -totals[name]):
        sizes = [(split, counts[split].get(name, 0)) for split in splits]
        parts = [(split, n, round(100 * n / largest, 2)) for split, n in sizes if n]
        bars.append(ClassBar(name, totals[name], parts))
    return bars


def _make_thumbnail(path: str) -> str:
    """Return a small JPEG of a readable image as a data URI, upright, in its own proportions."""
    picture = read_picture(path, at_least=MAX_SIDE)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return encode_jpeg_uri(picture)
