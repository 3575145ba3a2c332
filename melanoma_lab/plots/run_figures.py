"""The figures of a finished run, as PNG files.

A network has seven, and a trivial classifier, which has no epochs, has fewer. There are two more if
the dataset names a positive class, and one if there are subgroups.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.plots import classification, clinical_evaluation, style, training_figures
from melanoma_lab.plots.training_figures import TrainingFigures


def save_run_figures(
    folder: Path,
    run: EvaluatedRun,
    *,
    training: TrainingFigures | None = None,
    title: str | None = None,
    in_use: bool = True,
) -> list[Path]:
    """Draw and write every figure of a run into a folder, which is created if it is missing.

    Args:
        folder: the folder to write to.
        run: the evaluated run; its test split is drawn, or val if no test image was predicted.
        training: data of the training's figures; None: nothing was trained here.
        title: name of the images in titles; None: the name of their split.
        in_use: whether to draw the operating point, the decision curve and the subgroups. A trivial
            classifier, which nobody would use, has them only in its tables.

    Returns:
        The paths of the files.
    """
    split, evaluation = run.predictions.evaluated, run.evaluation
    title = title or split.name
    arguments = (split.y_true, split.y_score, split.slugs, title)
    figures = {
        "confusion_matrix": classification.draw_confusion_matrix(*arguments),
        "roc_curves": classification.draw_roc_curves(*arguments, run.positive_class),
        "precision_recall_curves": classification.draw_precision_recall_curves(
            *arguments, run.positive_class
        ),
        "reliability_diagram": classification.draw_reliability_diagram(
            split.y_true, split.y_score, title, evaluation.temperature
        ),
    }
    if training is not None:
        figures["class_distribution"] = training_figures.draw_class_distribution(
            training.counts, split.slugs
        )
    if in_use and evaluation.point is not None:
        labels_and_scores = split.calibrate(evaluation.temperature).one_vs_rest(
            evaluation.point.slug
        )
        figures["operating_curve"] = clinical_evaluation.draw_operating_curve(
            *labels_and_scores, split.name, evaluation.point, title
        )
        figures["decision_curve"] = clinical_evaluation.draw_decision_curve(
            *labels_and_scores, split.groups, title, evaluation.point.slug
        )
    if in_use and len(evaluation.subgroups):
        figures["subgroups"] = clinical_evaluation.draw_subgroup_forest(
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
