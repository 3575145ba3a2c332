"""``mistakes.html``: a run's most confident mistakes, in a single file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.reports.error_analysis.decisions import N_PAIRS, Mistakes
from melanoma_lab.reports.error_analysis.explained_images import ExplainedImage
from melanoma_lab.reports.rendering import render_template

PAGE = "mistakes.html"
#: Columns of the manifest that are shown if they are known.
FACTS = ("age", "sex", "site", "source")
#: The most images that a remark of the audit names.
N_NAMED = 3


@dataclass(frozen=True)
class AuditRemark:
    """A remark of the audit on an image: the cause of a confident mistake may be a wrong label.

    Attributes:
        text: a sentence without a full stop.
        of_label: whether the label may be wrong.
    """

    text: str
    of_label: bool


def collect_audit_remarks(
    audit: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, list[AuditRemark]]:
    """Collect an audit's remarks by image.

    Args:
        audit: the result of the audit, as in ``audit.json``.
        labels: the class that the run used, by image_id; images that were left out may be missing.

    Returns:
        The remarks by image_id, those that doubt the label first; images without any are missing.
    """
    remarks: dict[str, list[AuditRemark]] = defaultdict(list)
    # A pair of images gets only its first remark, because later ones are weaker.
    mentioned: set[tuple[str, str]] = set()

    def add_remarks(groups: Sequence[Sequence[str]], what: str, *, of_label: bool) -> None:
        for group in groups:
            for image_id in group:
                others = [
                    one for one in group if one != image_id and (image_id, one) not in mentioned
                ]
                if others:
                    remarks[image_id].append(
                        AuditRemark(f"{what} {_list_images(others, labels)}", of_label)
                    )
                    mentioned.update((image_id, one) for one in others)

    for found in audit.get("metadata_conflicts", ()):
        text = f"labelled {found['label']}, but the metadata's diagnosis is {found['diagnosis']}"
        remarks[found["image_id"]].append(AuditRemark(text, of_label=True))
    add_remarks(
        audit.get("label_conflicts", ()), "an identical image has another label:", of_label=True
    )
    add_remarks(
        audit.get("near_label_conflicts", ()),
        "a copy of this photograph has another label; copies:",
        of_label=True,
    )
    add_remarks(audit.get("exact_duplicate_groups", ()), "the same file:", of_label=False)
    add_remarks(audit.get("pixel_duplicate_groups", ()), "the same pixels:", of_label=False)
    add_remarks(
        audit.get("near_duplicate_groups", ()), "copies of this photograph:", of_label=False
    )
    for found in audit.get("suspicious", ()):
        remarks[found["image_id"]].append(AuditRemark(str(found["reason"]), of_label=False))
    return {name: sorted(all_, key=lambda one: not one.of_label) for name, all_ in remarks.items()}


def _list_images(image_ids: Sequence[str], labels: Mapping[str, str]) -> str:
    """List the first few images with their classes, and the number of the others."""
    shown = [
        f"{one} ({labels[one]})" if one in labels else f"{one} (left out)"
        for one in image_ids[:N_NAMED]
    ]
    more = [f"and {len(image_ids) - N_NAMED} more"] if len(image_ids) > N_NAMED else []
    return ", ".join([*shown, *more])


@dataclass(frozen=True)
class MistakeCard:
    """One mistake on the page.

    Attributes:
        image_id: the image's id.
        label: name of its class, for display.
        predicted: name of the predicted class.
        probability: calibrated probability of the predicted class, as text in per cent.
        true_probability: calibrated probability of its label, as text in per cent.
        facts: names and values of its metadata.
        remarks: remarks of the audit on the image.
        flagged: whether its score reaches the operating point although another class was predicted.
        picture: the picture as a data URI; empty: none is shown.
        laid_over: the picture with the heat map as a data URI; empty: there is none.
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
        run: the evaluated run; its manifest may lack label, path and metadata.
        chosen: the mistakes to show.
        name: the run's name.
        seen: the explained images by image_id, for every mistake with a picture.
        places: rows and columns of the heat maps before they are smoothed; None: there are none.
        why_no_maps: a sentence that says why there are no heat maps; empty if there are.
        with_pictures: whether images are shown.
    """
    split, audit = run.predictions.evaluated, run.audit or {}
    group_sizes = dict(run.predictions.table["group"].value_counts())  # of all splits
    known = run.manifest.set_index("image_id")
    labels = dict(zip(known.index, known["label"], strict=True)) if "label" in known else {}
    remarks = collect_audit_remarks(audit, labels)
    builder = _CardBuilder(known, group_sizes, remarks, seen, run.evaluation)
    missed = [builder.build(row) for _, row in chosen.missed.iterrows()]
    others = [builder.build(row) for _, row in chosen.others.iterrows()]
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
                "pairs": [_format_pair(row) for _, row in chosen.pairs.head(N_PAIRS).iterrows()],
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
class _CardBuilder:
    """Builder of the page's cards from rows of ``tabulate_decisions``.

    Attributes:
        known: the manifest, indexed by image_id.
        group_sizes: number of images by group, over all splits.
        remarks: remarks of the audit by image_id.
        seen: the explained images by image_id.
        evaluation: the run's evaluation, with its operating point.
    """

    known: pd.DataFrame
    group_sizes: Mapping[str, int]
    remarks: Mapping[str, list[AuditRemark]]
    seen: Mapping[str, ExplainedImage]
    evaluation: ClinicalEvaluation

    def build(self, row: pd.Series) -> MistakeCard:
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
            probability=_format_probability(row["probability"]),
            true_probability=_format_probability(row["true_probability"]),
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
        n_images = self.group_sizes[group]
        count = f"{n_images} images" if n_images > 1 else ""
        text = ", ".join(filter(None, (lesion, count)))
        facts = [("lesion", text)] if text else []
        for column in FACTS:
            value = known.get(column)
            if value is not None and not pd.isna(value) and value not in {"", "unknown"}:
                facts.append((column, f"{value:g}" if isinstance(value, float) else str(value)))
        return facts


def _format_pair(row: pd.Series) -> list[str]:
    """Format a row of ``Mistakes.pairs`` for the page's table."""
    return [
        f"{_readable(row['y_true'])} predicted as {_readable(row['predicted'])}",
        f"{row['images']:,}",
        f"{row['groups']:,}",
        format_percent(row["share"], 0),
    ]


def _readable(slug: str) -> str:
    return slug.replace("_", " ")


def _format_probability(probability: float) -> str:
    """Format a probability in per cent, with a decimal only close to 0 and 100."""
    percent = 100 * probability
    if percent < 0.1:
        return "below 0.1 %"
    if percent > 99.9:
        return "over 99.9 %"
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.1f} %"
