"""A run's error analysis: the figure of its most confident decisions and ``mistakes.html``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.core.console import show_note
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_percent, truncate
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.decision_rule import OperatingPoint
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.plots.grad_cam import ClassExamples, DecidedImage, draw_surest_decisions
from melanoma_lab.plots.style import save_png
from melanoma_lab.reports.decisions import (
    N_PAIRS,
    Mistakes,
    choose_mistakes,
    choose_surest_decisions,
    tabulate_decisions,
)
from melanoma_lab.reports.explained_images import (
    ExplainedImage,
    ImageExplainer,
    MissingImagesError,
    explain_images,
)
from melanoma_lab.reports.rendering import render_template

FIGURE = "grad_cam.png"
#: The least side of an image in the figure, in pixels.
SIDE = 192
PAGE = "mistakes.html"
#: Columns of the manifest that are shown if they are known.
FACTS = ("age", "sex", "site", "source")
#: The most images that a remark of the audit names.
N_NAMED = 3
#: Key of a list of groups in the audit: what to say of an image in one, and whether it doubts the
#: label; the strongest first.
_GROUP_REMARKS = {
    "label_conflicts": ("an identical image has another label:", True),
    "near_label_conflicts": ("a copy of this photograph has another label; copies:", True),
    "exact_duplicate_groups": ("the same file:", False),
    "pixel_duplicate_groups": ("the same pixels:", False),
    "near_duplicate_groups": ("copies of this photograph:", False),
}


def write_error_analysis(
    folder: Path,
    run: EvaluatedRun,
    *,
    name: str,
    explainer: ImageExplainer | None,
    why_no_maps: str = "",
) -> None:
    """Write ``mistakes.html`` and, if there are heat maps, ``plots/grad_cam.png``.

    Args:
        folder: the folder of the run's artifacts.
        run: the evaluated run; its manifest may lack label, path and metadata.
        name: the run's name.
        explainer: loads images and computes their heat maps; None: no images are shown.
        why_no_maps: a sentence that says why there are no heat maps; empty if there are.
    """
    split, temperature = run.predictions.evaluated, run.evaluation.temperature
    found = tabulate_decisions(split, temperature)
    chosen = choose_mistakes(found, run.positive_class)
    classes = choose_surest_decisions(found, split.slugs)
    seen: dict[str, ExplainedImage] = {}
    if explainer is not None:
        examples = [row for one in classes for row in (one.right, one.wrong) if row is not None]
        wanted = pd.concat([chosen.shown, pd.DataFrame(examples)]).drop_duplicates("image_id")
        predicted = pd.Index(split.slugs).get_indexer(pd.Index(wanted["predicted"])).astype(np.intp)
        try:
            seen = explain_images(explainer, list(wanted["image_id"]), predicted)
        except MissingImagesError as error:
            why_no_maps, explainer = str(error), None
        except Exception as error:  # noqa: BLE001 - a user's own network may not support heat maps
            reason = str(error) if isinstance(error, UserError) else f"No Grad-CAM: {error!r}"
            why_no_maps = truncate(reason, 400)
            show_note(why_no_maps)
            without_maps = replace(explainer, heat=None)
            seen = explain_images(without_maps, list(wanted["image_id"]), predicted)
    places = None
    if explainer and explainer.places and any(one.heat is not None for one in seen.values()):
        places = explainer.places()

        def build_image(row: pd.Series | None) -> DecidedImage | None:
            if row is None:
                return None
            pair = seen[row["image_id"]].pair(SIDE)
            return DecidedImage(*pair, row["predicted"], row["probability"])

        blocks = [
            ClassExamples(one.slug, build_image(one.right), build_image(one.wrong))
            for one in classes
        ]
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        calibrated = not temperature.why_not
        figure = draw_surest_decisions(blocks, split.name, places=places, calibrated=calibrated)
        save_png(figure, folder / "plots" / FIGURE, photographs=True)
    _write_page(
        folder / PAGE,
        run,
        chosen,
        name=name,
        seen=seen,
        places=places,
        why_no_maps=why_no_maps,
        with_pictures=explainer is not None,
    )


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
    """Collect an audit's remarks by image_id, those that doubt the label first.

    Args:
        audit: the result of the audit, as in ``audit.json``.
        labels: the class that the run used, by image_id; images that were left out may be missing.
    """
    remarks: dict[str, list[AuditRemark]] = defaultdict(list)
    # A pair of images gets only its first remark, because later ones are weaker.
    mentioned: set[tuple[str, str]] = set()
    for found in audit.get("metadata_conflicts", ()):
        text = f"labelled {found['label']}, but the metadata's diagnosis is {found['diagnosis']}"
        remarks[found["image_id"]].append(AuditRemark(text, of_label=True))
    for key, (what, of_label) in _GROUP_REMARKS.items():
        for group in audit.get(key, ()):
            for image_id in group:
                others = [
                    one for one in group if one != image_id and (image_id, one) not in mentioned
                ]
                if others:
                    text = f"{what} {_list_images(others, labels)}"
                    remarks[image_id].append(AuditRemark(text, of_label))
                    mentioned.update((image_id, one) for one in others)
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
    """One mistake on the page, as text; probabilities are calibrated, in per cent.

    Attributes:
        facts: names and values of its metadata.
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


def _write_page(
    path: Path,
    run: EvaluatedRun,
    chosen: Mistakes,
    *,
    name: str,
    seen: Mapping[str, ExplainedImage],
    places: tuple[int, int] | None,
    why_no_maps: str,
    with_pictures: bool,
) -> None:
    """Write ``mistakes.html``."""
    split, audit = run.predictions.evaluated, run.audit or {}
    group_sizes = run.predictions.table["group"].value_counts()  # of all splits
    known = run.manifest.set_index("image_id")
    labels = dict(zip(known.index, known["label"], strict=True)) if "label" in known else {}
    remarks = collect_audit_remarks(audit, labels)

    def build_cards(rows: pd.DataFrame) -> list[MistakeCard]:
        return [
            _build_card(
                row,
                known.loc[row["image_id"]],
                group_sizes[row["group"]],
                remarks=remarks.get(row["image_id"], []),
                seen=seen.get(row["image_id"]),
                point=run.evaluation.point,
            )
            for _, row in rows.iterrows()
        ]

    missed, others = build_cards(chosen.missed), build_cards(chosen.others)
    content = {
        "name": name,
        "split": split.name,
        "n_images": len(split),
        "n_wrong": chosen.n_missed + chosen.n_others,
        "n_missed": chosen.n_missed,
        "n_others": chosen.n_others,
        "positive_class": run.positive_class and _readable(run.positive_class),
        "missed": missed,
        "others": others,
        "doubtful": sum(any(note.of_label for note in card.remarks) for card in missed + others),
        "audited": bool(audit),
        "uncalibrated": run.evaluation.temperature.why_not,
        "pairs": [_format_pair(row) for _, row in chosen.pairs.head(N_PAIRS).iterrows()],
        "n_more_pairs": max(0, len(chosen.pairs) - N_PAIRS),
        "places": places if any(card.laid_over for card in missed + others) else None,
        "with_pictures": with_pictures,
        "why_no_maps": why_no_maps,
        "version": __version__,
    }
    text = render_template("melanoma_lab.reports", PAGE, content)
    path.write_text(text, encoding="utf-8")


def _build_card(
    row: pd.Series,
    known: Any,
    group_size: int,
    *,
    remarks: list[AuditRemark],
    seen: ExplainedImage | None,
    point: OperatingPoint | None,
) -> MistakeCard:
    """Build a card from a row of ``tabulate_decisions`` and the image's row of the manifest."""
    picture, laid_over = ("", "") if seen is None else seen.uris(str(known["path"]))
    count = f"{group_size} images" if group_size > 1 else ""
    lesion = ", ".join(filter(None, (str(known.get("lesion", "") or ""), count)))
    facts = [("lesion", lesion)] if lesion else []
    for column in FACTS:
        value = known.get(column)
        if value is not None and not pd.isna(value) and value not in {"", "unknown"}:
            facts.append((column, f"{value:g}" if isinstance(value, float) else str(value)))
    return MistakeCard(
        image_id=str(row["image_id"]),
        label=_readable(row["y_true"]),
        predicted=_readable(row["predicted"]),
        probability=_format_probability(row["probability"]),
        true_probability=_format_probability(row["true_probability"]),
        facts=facts,
        remarks=remarks,
        flagged=point is not None
        and row["y_true"] == point.slug
        and bool(row[point.slug] >= point.threshold),
        picture=picture,
        laid_over=laid_over,
    )


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
