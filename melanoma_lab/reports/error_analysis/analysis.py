"""A run's examples: the figure of its surest decisions and the page of its surest mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lab.core.console import show_note
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
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
    run: EvaluatedRun,
    *,
    name: str,
    explainer: ImageExplainer | None,
    why_no_maps: str = "",
) -> None:
    """Write ``mistakes.html`` and, if a network has looked at images, ``plots/grad_cam.png``.

    Args:
        folder: of the run's artifacts.
        run: its predictions, their evaluation and what is known of its images.
        name: of the run.
        explainer: loads images and computes their heat maps; None: no images are shown.
        why_no_maps: why no network has looked, a sentence; empty where one has.
    """
    split, temperature = run.predictions.evaluated, run.evaluation.temperature
    found = tabulate_decisions(split, temperature)
    chosen = choose_mistakes(found, run.positive_class)
    classes = choose_surest_decisions(found, split.slugs)
    seen: dict[str, ExplainedImage] = {}
    if explainer is not None:
        surest = [row for one in classes for row in (one.right, one.wrong) if row is not None]
        wanted = pd.concat([chosen.shown, pd.DataFrame(surest)]).drop_duplicates("image_id")
        predicted = pd.Index(split.slugs).get_indexer(pd.Index(wanted["predicted"])).astype(np.intp)
        try:
            seen = explain_images(explainer, list(wanted["image_id"]), predicted)
        except MissingImagesError as error:
            why_no_maps, explainer = str(error), None
        except Exception as error:  # noqa: BLE001 - a user's own network must not fail for a map
            told = str(error) if isinstance(error, UserError) else f"No Grad-CAM: {error!r}"
            why_no_maps = truncate(told, 400)
            show_note(why_no_maps)
            seen = explain_images(
                replace(explainer, heat=None), list(wanted["image_id"]), predicted
            )
    places = None
    if explainer and explainer.places and any(one.heat is not None for one in seen.values()):
        places = explainer.places()

        def decided(row: pd.Series | None) -> DecidedImage | None:
            if row is None:
                return None
            pair = seen[row["image_id"]].pair(SIDE)
            return DecidedImage(*pair, row["predicted"], row["probability"])

        blocks = [
            ClassExamples(one.slug, decided(one.right), decided(one.wrong)) for one in classes
        ]
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        calibrated = not temperature.why_not
        figure = draw_surest_decisions(blocks, split.name, places=places, calibrated=calibrated)
        save_png(figure, folder / "plots" / FIGURE, photographs=True)
    write_mistakes_page(
        folder / PAGE,
        run,
        chosen,
        name=name,
        seen=seen,
        places=places,
        why_no_maps=why_no_maps,
        with_pictures=explainer is not None,
    )
