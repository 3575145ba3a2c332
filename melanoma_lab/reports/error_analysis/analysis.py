"""A run's examples: the figure of its surest decisions and the page of its surest mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.core.console import show_note
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
from melanoma_lab.evaluation.predictions import judged_split, slugs_of
from melanoma_lab.plots.grad_cam import ClassExamples, DecidedImage, draw_surest_decisions
from melanoma_lab.plots.style import save_png
from melanoma_lab.reports.error_analysis.decisions import (
    choose_mistakes,
    choose_surest_decisions,
    tabulate_decisions,
)
from melanoma_lab.reports.error_analysis.explained_images import (
    ExplainedImage,
    ImageExplainer,
    MissingImagesError,
    explain_images,
)
from melanoma_lab.reports.error_analysis.mistakes_page import PAGE, write_mistakes_page

FIGURE = "grad_cam.png"
#: Pixels that an image has a side in the figure, at least.
SIDE = 192


def write_error_analysis(
    folder: Path,
    *,
    name: str,
    table: pd.DataFrame,
    judgement: ClinicalEvaluation,
    melanoma: str | None,
    manifest: pd.DataFrame,
    audit: Mapping[str, Any],
    looking: ImageExplainer | None,
    why_no_maps: str = "",
) -> None:
    """Write ``choose_mistakes.html`` and, where a network has looked, ``plots/grad_cam.png``.

    Args:
        folder: of the run's artifacts.
        name: of the run.
        table: its predictions.
        judgement: of them.
        melanoma: slug of the melanoma class, None where the dataset names none.
        manifest: with image_id, and path, label and what is known of the images.
        audit: ``audit.json`` of the dataset; empty where there is none.
        looking: how images are had; None: none are shown.
        why_no_maps: why no network has looked, a sentence; empty where one has.
    """
    slugs, split = slugs_of(table), judged_split(table)
    found = tabulate_decisions(table, judgement.temperature)
    chosen, classes = choose_mistakes(found, melanoma), choose_surest_decisions(found, slugs)
    seen: dict[str, ExplainedImage] = {}
    if looking is not None:
        surest = [row for one in classes for row in (one.right, one.wrong) if row is not None]
        wanted = pd.concat([chosen.shown, pd.DataFrame(surest)]).drop_duplicates("image_id")
        predicted = pd.Index(slugs).get_indexer(pd.Index(wanted["predicted"])).astype(np.intp)
        try:
            seen = explain_images(looking, list(wanted["image_id"]), predicted)
        except MissingImagesError as error:
            why_no_maps, looking = str(error), None
        except Exception as error:  # noqa: BLE001 - a user's own network must not fail for a map
            told = str(error) if isinstance(error, UserError) else f"No Grad-CAM: {error!r}"
            why_no_maps = truncate(told, 400)
            show_note(why_no_maps)
            seen = explain_images(replace(looking, heat=None), list(wanted["image_id"]), predicted)
    places = None
    if looking and looking.places and any(one.heat is not None for one in seen.values()):
        places = looking.places()

        def decided(row: pd.Series | None) -> DecidedImage | None:
            if row is None:
                return None
            pair = seen[row["image_id"]].pair(SIDE)
            return DecidedImage(*pair, row["predicted"], row["probability"])

        blocks = [
            ClassExamples(one.slug, decided(one.right), decided(one.wrong)) for one in classes
        ]
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        calibrated = not judgement.temperature.why_not
        figure = draw_surest_decisions(blocks, split, places=places, calibrated=calibrated)
        save_png(figure, folder / "plots" / FIGURE, photographs=True)
    write_mistakes_page(
        folder / PAGE,
        chosen,
        name=name,
        split=split,
        n_images=len(found),
        melanoma=melanoma,
        group_sizes=dict(table["group"].value_counts()),
        manifest=manifest,
        audit=audit,
        judgement=judgement,
        seen=seen,
        places=places,
        why_no_maps=why_no_maps,
        with_pictures=looking is not None,
    )
