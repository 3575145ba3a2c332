"""The report of a finished run of any kind: tables, model card, figures and model."""

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
from melanoma_lab.reports.error_analysis import write_error_analysis
from melanoma_lab.reports.explained_images import ImageExplainer
from melanoma_lab.reports.model_card import write_model_card
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.run_reader import RunIdentity
from melanoma_lab.tracking.tracker import Tracker


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """Data and settings of a report's figures, in addition to the evaluated run.

    Attributes:
        training: data of the training's figures; None: nothing was trained here.
        explainer: loads images and computes their heat maps; None: no images are shown.
        why_no_maps: a sentence that says why there are no heat maps; empty if there are.
        title: name of the images in titles; None: the name of their split.
        in_use: False for a trivial classifier, which nobody would use: no operating curve, no
            decision curve and no subgroups are drawn.
    """

    training: TrainingFigures | None = None
    explainer: ImageExplainer | None = None
    why_no_maps: str = ""
    title: str | None = None
    in_use: bool = True


@dataclass(frozen=True, eq=False)
class ReportedModel:
    """A network that is saved with its run.

    Attributes:
        network: a Keras model.
        info: meaning of its inputs and outputs.
        files: texts of further files in the model's folder, by file name.
    """

    network: Any
    info: ModelInfo
    files: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything that is saved of a finished run.

    Attributes:
        run: the run's predictions, their evaluation, the metrics and the table of images.
        tags: tags that are known only at the end; those of absent classes are added.
        figures: data of the figures; None: neither figures nor the table of images are saved.
        model: the network, which also gets a model card; None: no model is saved.
        manifest_columns: further columns of ``manifest.csv`` by name, one value for each image.
        files: texts of further files by file name.
    """

    run: EvaluatedRun
    tags: Mapping[str, str] = field(default_factory=dict)
    figures: ReportFigures | None = None
    model: ReportedModel | None = None
    manifest_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def log_report(report: RunReport, tracker: Tracker, *, lines: bool = True) -> None:
    """Write a report and log it to the current run.

    Args:
        report: the report.
        tracker: the tracker that records the run.
        lines: whether to print a line for each slow step.
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
    """Write the configuration, the predictions, the evaluation, the images and further files."""
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
        run: the evaluated run.
        figures: further data and settings of the figures.
        folder: the folder to write to.
        name: the run's name.
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
