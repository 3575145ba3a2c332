"""The figures of a finished run, as PNG files.

Seven of a network and fewer of what has no epochs; two more where the dataset names a melanoma
class, and one where its metadata divides the images.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.plots import (
    classification,
    clinical_evaluation,
    reliability,
    style,
    subgroups,
    training_figures,
)
from melanoma_lab.plots.training_figures import TrainingFigures


def save_run_figures(
    folder: Path,
    run: EvaluatedRun,
    *,
    training: TrainingFigures | None = None,
    title: str | None = None,
    in_use: bool = True,
) -> list[Path]:
    """Draw and write every figure of a run; what it predicts is shown for the held-out images.

    Args:
        folder: where to write; made if it is not there.
        run: what is drawn: its test split, or val if it has predicted no test image.
        training: what is drawn of its training; None: nothing was trained here.
        title: what titles call the images; None: their split.
        in_use: whether to draw what it would be worth in use: the operating point, the decision
            curve and the subgroups. Nobody uses a trivial classifier; its tables have them.

    Returns:
        The files written.
    """
    split, evaluation = run.predictions.evaluated, run.evaluation
    title = title or split.name
    held_out = (split.y_true, split.y_score, split.slugs, title)
    figures = {
        "confusion_matrix": classification.draw_confusion_matrix(*held_out),
        "roc_curves": classification.draw_roc_curves(*held_out, run.positive_class),
        "precision_recall_curves": classification.draw_precision_recall_curves(
            *held_out, run.positive_class
        ),
        "reliability_diagram": reliability.draw_reliability_diagram(
            split.y_true, split.y_score, title, evaluation.temperature
        ),
    }
    if training is not None:
        figures["class_distribution"] = training_figures.draw_class_distribution(
            training.counts, split.slugs
        )
    if in_use and evaluation.point is not None:
        of_class = split.calibrate(evaluation.temperature).one_vs_rest(evaluation.point.slug)
        figures["operating_curve"] = clinical_evaluation.draw_operating_curve(
            *of_class, split.name, evaluation.point, title
        )
        figures["decision_curve"] = clinical_evaluation.draw_decision_curve(
            *of_class, split.groups, title, evaluation.point.slug
        )
    if in_use and len(evaluation.subgroups):
        figures["subgroups"] = subgroups.draw_subgroup_forest(
            evaluation.subgroups, evaluation.point, title
        )
    if training is not None and len(training.sample_images):
        figures["samples"] = training_figures.draw_samples(
            training.sample_images, training.sample_names
        )
    if training is not None and training.history:
        figures["learning_curves"] = training_figures.draw_learning_curves(
            training.history, training.kept_epoch
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        style.save_png(figure, paths[-1], photographs=name == "samples")
    return paths
