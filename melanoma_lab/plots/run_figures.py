"""The figures of a finished run, as PNG files.

Seven of a network and fewer of what has no epochs; two more where the dataset names a melanoma
class, and one where its metadata divides the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.plots import (
    classification,
    clinical_evaluation,
    reliability,
    style,
    subgroups,
    training_figures,
)
from melanoma_lab.plots.training_figures import ClassCounts


def save_run_figures(
    folder: Path,
    *,
    predictions: Predictions,
    melanoma: str | None,
    judgement: ClinicalEvaluation,
    history: Mapping[str, Sequence[float]] | None = None,
    kept_epoch: int | None = None,
    counts: ClassCounts | None = None,
    sample_images: NDArray[np.generic] | None = None,
    sample_names: Sequence[str] = (),
    shown_as: str | None = None,
    in_use: bool = True,
) -> list[Path]:
    """Draw and write every figure of a run; what it predicts is shown for the held-out images.

    Args:
        folder: where to write; made if it is not there.
        predictions: the run's. The test split is shown, or val where test is empty.
        melanoma: slug of the melanoma class, None where the dataset names none.
        judgement: of the predictions.
        history: lists of one value an epoch, as ``training_figures.draw_learning_curves`` takes
            them; None or empty where nothing was trained epoch by epoch, and then no curves are
            drawn.
        kept_epoch: epoch whose weights were kept, counted from 1.
        counts: images per class and split; None: they are not drawn.
        sample_images: training images as the network gets them, uint8 or float in 0 to 255,
            shape (n, height, width, 3); None or n = 0: they are not drawn.
        sample_names: n class slugs.
        shown_as: what titles call the images; None: their split.
        in_use: whether to draw what it would be worth in use: the operating point, the decision
            curve and the subgroups. Nobody uses a trivial classifier; its tables have them.

    Returns:
        The files written.
    """
    slugs, split = predictions.slugs, predictions.evaluated
    title = shown_as or split.name
    held_out = (split.y_true, split.y_score, slugs, title)
    figures = {
        "confusion_matrix": classification.draw_confusion_matrix(*held_out),
        "roc_curves": classification.draw_roc_curves(*held_out, melanoma),
        "precision_recall_curves": classification.draw_precision_recall_curves(*held_out, melanoma),
        "reliability_diagram": reliability.draw_reliability_diagram(
            split.y_true, split.y_score, title, judgement.temperature
        ),
    }
    if counts is not None:
        figures["class_distribution"] = training_figures.draw_class_distribution(counts, slugs)
    if in_use and judgement.point is not None:
        of_class = split.calibrate(judgement.temperature).one_vs_rest(judgement.point.slug)
        figures["operating_curve"] = clinical_evaluation.draw_operating_curve(
            *of_class, split.name, judgement.point, title
        )
        figures["decision_curve"] = clinical_evaluation.draw_decision_curve(
            *of_class, split.groups, title, judgement.point.slug
        )
    if in_use and len(judgement.subgroups):
        figures["subgroups"] = subgroups.draw_subgroup_forest(
            judgement.subgroups, judgement.point, title
        )
    if sample_images is not None and len(sample_images):
        figures["samples"] = training_figures.draw_samples(sample_images, sample_names)
    if history:
        figures["learning_curves"] = training_figures.draw_learning_curves(history, kept_epoch)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        style.save_png(figure, paths[-1], photographs=name == "samples")
    return paths
