"""A run's error analysis: the figure of its most confident decisions and the page of mistakes."""

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
#: The least side of an image in the figure, in pixels.
SIDE = 192


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
        run: the run's predictions, their evaluation and the table of images.
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
            seen = explain_images(
                replace(explainer, heat=None), list(wanted["image_id"]), predicted
            )
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
