"""What a finished run leaves behind, whatever it was: tables, model card, figures and model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from melanoma_lab.core.console import show_progress
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.plots.run_figures import save_run_figures
from melanoma_lab.plots.training_figures import TrainingFigures
from melanoma_lab.reports.error_analysis.analysis import write_error_analysis
from melanoma_lab.reports.error_analysis.explained_images import ImageExplainer
from melanoma_lab.reports.model_card.content import write_model_card
from melanoma_lab.reports.model_card.run_identity import RunIdentity
from melanoma_lab.tracking import Tracker
from melanoma_lab.tracking.model_info import ModelInfo


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """What is drawn beside the figures of the predictions themselves.

    Attributes:
        training: of the training; None: nothing was trained here.
        explainer: loads images and computes their heat maps; None: no images are shown.
        why_no_maps: why there are no heat maps, a sentence; empty if there are.
        title: what titles call the images; None: their split.
        in_use: False for a trivial classifier, which nobody uses: no operating curve, no decision
            curve and no subgroups are drawn.
    """

    training: TrainingFigures | None = None
    explainer: ImageExplainer | None = None
    why_no_maps: str = ""
    title: str | None = None
    in_use: bool = True


@dataclass(frozen=True, eq=False)
class ReportedModel:
    """A network that is kept with its run.

    Attributes:
        network: a Keras model.
        info: what its inputs and outputs mean.
        files: name -> text of further files in its folder.
    """

    network: Any
    info: ModelInfo
    files: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything that a finished run leaves behind.

    Attributes:
        run: its predictions, their evaluation, metrics and what is known of its images.
        tags: facts that only the end of a run knows; those of absent classes are added.
        figures: what is drawn; None: neither figures nor the table of images are kept.
        model: the network; None: none is kept. A model card is written if there is one.
        manifest_columns: name -> values of further columns of ``manifest.csv``, one an image.
        files: name -> text of further files beside the tables.
    """

    run: EvaluatedRun
    tags: Mapping[str, str] = field(default_factory=dict)
    figures: ReportFigures | None = None
    model: ReportedModel | None = None
    manifest_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def log_report(report: RunReport, tracker: Tracker, *, lines: bool = True) -> None:
    """Keep all of a report with a run that is under way.

    Args:
        report: of the run.
        tracker: of the run.
        lines: whether to print a line for each step that takes long.
    """
    tracker.log_metrics(report.run.metrics)
    absent = report.run.absent_classes
    tracker.set_tags(
        {**report.tags, **{f"absent/{split}": ", ".join(slugs) for split, slugs in absent.items()}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tables(report, folder)
        if report.model is not None:
            identity = RunIdentity(tracker.run_id, tracker.started, tracker.tags)
            write_model_card(report.run, identity, folder)
        if report.figures is not None:
            with show_progress("drawing figures", line=lines):
                write_figures(report.run, report.figures, folder, tracker.run_name)
        tracker.log_folder(folder)
    if report.model is not None:
        with show_progress("saving the network", line=lines):
            tracker.log_network(report.model.network, report.model.info, report.model.files)


def write_tables(report: RunReport, folder: Path) -> None:
    """Write what is no figure and no page: configuration, predictions, evaluation, images."""
    run = report.run
    OmegaConf.save(OmegaConf.create(dict(run.config)), folder / "config.yaml")
    run.predictions.write(folder / "predictions.csv")
    run.evaluation.write(folder)
    if report.figures is not None:
        manifest = run.manifest.assign(**report.manifest_columns)
        manifest.to_csv(folder / "manifest.csv", index=False)
    for name, text in report.files.items():
        (folder / name).write_text(text, encoding="utf-8")


def write_figures(run: EvaluatedRun, figures: ReportFigures, folder: Path, name: str) -> None:
    """Write ``plots`` and ``mistakes.html``.

    Args:
        run: what is drawn.
        figures: what is drawn beside its predictions.
        folder: where to write.
        name: of the run.
    """
    save_run_figures(
        folder / "plots",
        run,
        training=figures.training,
        title=figures.title,
        in_use=figures.in_use,
    )
    write_error_analysis(
        folder,
        run,
        name=name,
        explainer=figures.explainer,
        why_no_maps=figures.why_no_maps,
    )
