"""``mistakes.html``: a run's surest mistakes, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.reports.error_analysis.audit_remarks import AuditRemark, collect_audit_remarks
from melanoma_lab.reports.error_analysis.decisions import N_PAIRS, Mistakes
from melanoma_lab.reports.error_analysis.explained_images import ExplainedImage
from melanoma_lab.reports.rendering import render_template

PAGE = "mistakes.html"
#: Columns of the manifest that are shown where they are known.
FACTS = ("age", "sex", "site", "source")


@dataclass(frozen=True)
class MistakeCard:
    """One mistake on the page.

    Attributes:
        image_id: of the image.
        label: its class, as a reader wants it.
        predicted: what it was taken for.
        probability: of that, calibrated, in per cent.
        true_probability: of its label, in per cent.
        facts: name and value of what else is known of it.
        remarks: what the audit says of it.
        flagged: whether it reaches the operating point, though it was missed.
        picture: as a data URI; empty: none is shown.
        laid_over: with the map; empty: there is none.
    """

    image_id: str
    label: str
    predicted: str
    probability: str
    true_probability: str
    facts: list[tuple[str, str]]
    remarks: list[AuditRemark]
    flagged: bool
    picture: str
    laid_over: str


def write_mistakes_page(
    path: Path,
    run: EvaluatedRun,
    chosen: Mistakes,
    *,
    name: str,
    seen: Mapping[str, ExplainedImage],
    places: tuple[int, int] | None,
    why_no_maps: str = "",
    with_pictures: bool = True,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        run: whose mistakes they are; of its manifest, path, label and what is known of an image
            are shown where they are there.
        chosen: what is shown.
        name: of the run.
        seen: image_id -> what was looked at, of every mistake that has a picture.
        places: rows and columns of the maps before they are smoothed; None: there are none.
        why_no_maps: why none are laid over the images, a sentence; empty where they are.
        with_pictures: whether images were to be shown at all.
    """
    split, audit = run.predictions.evaluated, run.audit or {}
    group_sizes = dict(run.predictions.table["group"].value_counts())  # of all splits
    known = run.manifest.set_index("image_id")
    labels = dict(zip(known.index, known["label"], strict=True)) if "label" in known else {}
    remarks = collect_audit_remarks(audit, labels)
    show = _Showing(known, group_sizes, remarks, seen, run.evaluation)
    missed = [show.row(row) for _, row in chosen.missed.iterrows()]
    others = [show.row(row) for _, row in chosen.others.iterrows()]
    doubtful = sum(any(remark.of_label for remark in one.remarks) for one in [*missed, *others])
    path.write_text(
        render_template(
            "melanoma_lab.reports.error_analysis",
            PAGE,
            {
                "name": name,
                "split": split.name,
                "n_images": len(split),
                "n_wrong": chosen.n_missed + chosen.n_others,
                "n_missed": chosen.n_missed,
                "n_others": chosen.n_others,
                "positive_class": run.positive_class and _readable(run.positive_class),
                "missed": missed,
                "others": others,
                "doubtful": doubtful,
                "audited": bool(audit),
                "uncalibrated": run.evaluation.temperature.why_not,
                "pairs": [_pair(row) for _, row in chosen.pairs.head(N_PAIRS).iterrows()],
                "n_more_pairs": max(0, len(chosen.pairs) - N_PAIRS),
                "places": places if any(one.laid_over for one in [*missed, *others]) else None,
                "with_pictures": with_pictures,
                "why_no_maps": why_no_maps,
                "version": __version__,
            },
        ),
        encoding="utf-8",
    )


@dataclass(frozen=True)
class _Showing:
    """What rows of ``tabulate_decisions`` become on the page."""

    known: pd.DataFrame
    group_sizes: Mapping[str, int]
    remarks: Mapping[str, list[AuditRemark]]
    seen: Mapping[str, ExplainedImage]
    evaluation: ClinicalEvaluation

    def row(self, row: pd.Series) -> MistakeCard:
        image_id = str(row["image_id"])
        known: Any = self.known.loc[image_id]
        picture, laid_over = "", ""
        if image_id in self.seen:
            picture, laid_over = self.seen[image_id].uris(str(known["path"]))
        point = self.evaluation.point
        return MistakeCard(
            image_id=image_id,
            label=_readable(row["y_true"]),
            predicted=_readable(row["predicted"]),
            probability=_percent(row["probability"]),
            true_probability=_percent(row["true_probability"]),
            facts=self._facts(known, str(row["group"])),
            remarks=list(self.remarks.get(image_id, ())),
            flagged=point is not None
            and row["y_true"] == point.slug
            and bool(row[point.slug] >= point.threshold),
            picture=picture,
            laid_over=laid_over,
        )

    def _facts(self, known: pd.Series, group: str) -> list[tuple[str, str]]:
        lesion = str(known.get("lesion", "") or "")
        together = self.group_sizes[group]
        count = f"{together} images" if together > 1 else ""
        said = ", ".join(filter(None, (lesion, count)))
        facts = [("lesion", said)] if said else []
        for column in FACTS:
            value = known.get(column)
            if value is not None and not pd.isna(value) and value not in {"", "unknown"}:
                facts.append((column, f"{value:g}" if isinstance(value, float) else str(value)))
        return facts


def _pair(row: pd.Series) -> list[str]:
    """A row of ``Mistakes.pairs`` for the table."""
    return [
        f"{_readable(row['y_true'])} taken for {_readable(row['predicted'])}",
        f"{row['images']:,}",
        f"{row['groups']:,}",
        f"{100 * row['share']:.0f} %",
    ]


def _readable(slug: str) -> str:
    return slug.replace("_", " ")


def _percent(probability: float) -> str:
    """Whole per cents, and one decimal where they would say all or nothing."""
    percent = 100 * probability
    if percent < 0.1:
        return "below 0.1 %"
    if percent > 99.9:
        return "over 99.9 %"
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.1f} %"
