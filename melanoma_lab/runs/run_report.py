"""The report of a finished run of any kind, and of a training: evaluated, logged and printed."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, compare_with_chance, evaluate_run
from melanoma_lab.evaluation.predictions import build_predictions
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.plots.run_figures import save_run_figures
from melanoma_lab.plots.training_figures import ClassCounts, TrainingFigures, format_mixed_label
from melanoma_lab.reports.error_analysis import write_error_analysis
from melanoma_lab.reports.explained_images import NO_NETWORK, ImageExplainer, build_run_explainer
from melanoma_lab.reports.model_card import write_model_card
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.tracking.tracker import Tracker
from melanoma_lab.training.training_result import FitResult, TrainingResult


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
    """

    run: EvaluatedRun
    tags: Mapping[str, str] = field(default_factory=dict)
    figures: ReportFigures | None = None
    model: ReportedModel | None = None
    manifest_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def log_report(report: RunReport, tracker: Tracker, *, lines: bool = True) -> None:
    """Write a report and log it to the current run."""
    tracker.log_metrics(report.run.metrics)
    absent = report.run.absent_classes
    tracker.set_tags(
        {**report.tags, **{f"absent/{split}": ", ".join(slugs) for split, slugs in absent.items()}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tables(report, folder)
        if report.model is not None:
            write_model_card(report.run, tracker.identity, folder)
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
    """Write ``plots`` and ``mistakes.html``."""
    plots, training = folder / "plots", figures.training
    save_run_figures(plots, run, training=training, title=figures.title, in_use=figures.in_use)
    explainer, why_no_maps = figures.explainer, figures.why_no_maps
    write_error_analysis(folder, run, name=name, explainer=explainer, why_no_maps=why_no_maps)


def report_training(
    spec: RunSpec, images: BalancedSet, trained: TrainingResult, tracker: Tracker
) -> Mapping[str, float]:
    """Evaluate a training result, log it to MLflow and print it; return the metrics by name.

    Raises:
        RunError: the training diverged; metrics that could be computed have been recorded.
    """
    fit = trained.fit
    costs = count_costs(trained)
    if trained.probabilities is None:
        tracker.log_metrics(costs)
        tracker.set_tags({"outcome": "diverged"})
        raise RunError(
            f"diverged: {trained.diverged}; there are no metrics. {_lower_rate(spec.config, fit)}"
        )

    lines = spec.options.prints_lines
    with show_progress("computing metrics", line=lines):
        run = evaluate_training(spec, trained, costs)
    chance = compare_with_chance(run.predictions)
    report = RunReport(run, tags={"outcome": "diverged" if fit.diverged else chance.verdict})
    if spec.options.save_figures:
        report = add_figures_and_model(report, spec, images, trained)
        report = replace(report, files={"audit.json": spec.data.findings.to_text()})
    if trained.encoding is not None:
        encoding = json.dumps(trained.encoding.to_dict(), indent=2) + "\n"
        report = replace(report, files={"metadata.json": encoding, **report.files})
    log_report(report, tracker, lines=lines)
    if lines:
        absent = run.absent_classes
        run_messages.show_results(run.metrics, spec.data, epochs=len(fit.history), absent=absent)
        run_messages.show_clinical_evaluation(run.evaluation)
    if fit.diverged:  # after at least one good epoch, else there would be no probabilities
        raise RunError(
            f"diverged: {fit.diverged}; the best epoch before that was kept and evaluated. "
            f"{_lower_rate(spec.config, fit)}"
        )
    if trained.network is not None and lines:  # a trivial classifier may be at chance
        run_messages.show_chance_check(chance)
    return run.metrics


def count_costs(trained: TrainingResult) -> dict[str, float]:
    """Return the costs of a training as metrics of its run."""
    fit = trained.fit
    costs = {
        "parameters": float(trained.parameters),
        "fit_seconds": fit.seconds,
        "optimizer_steps": float(fit.optimizer_steps),
        "best_epoch": float(fit.best_epoch),
    }
    if fit.trainable is not None:
        costs["trainable_parameters"] = float(fit.trainable)
    return costs


def evaluate_training(
    spec: RunSpec, trained: TrainingResult, costs: Mapping[str, float]
) -> EvaluatedRun:
    """Evaluate the predictions of a training.

    Args:
        spec: what was trained; its options name the splits that the network was applied to.
        costs: metrics that ``count_costs`` returned; empty if they are known already.

    Raises:
        ValueError: the training diverged and has no probabilities.
    """
    config, data, splits = spec.config, spec.data, spec.options.splits
    if trained.probabilities is None:
        raise ValueError("Expected finite probabilities. Received those of a diverged training.")
    selected = data.select_splits(splits)
    predicted = data.manifest.iloc[selected]
    predictions = build_predictions(
        image_ids=list(predicted["image_id"]),
        groups=list(predicted["group"]),
        splits=list(predicted["split"]),
        labels=data.labels[selected],
        probabilities=trained.probabilities,
        slugs=data.slugs,
    )
    return evaluate_run(
        config_to_dict(config),
        predictions,
        data.manifest,
        audit=data.findings.as_json(),
        positive_class=data.positive_class,
        sensitivity=config.evaluation.sensitivity,
        splits=splits,
        costs=costs,
    )


def add_figures_and_model(
    report: RunReport, spec: RunSpec, images: BalancedSet, trained: TrainingResult
) -> RunReport:
    """Return a training's report with its figures and, if ``tracking.model`` is true, its network.

    Images of the dataset are shown unless ``tracking.images`` is false. A trivial classifier saves
    no model: its predictions are in the table.
    """
    config, data = spec.config, spec.data
    network, model = trained.network, None
    if config.tracking.model and network is not None:
        info = ModelInfo(
            slugs=data.slugs,
            classes=data.classes,
            positive_class=data.positive_class,
            dataset=config.dataset.name,
            image_size=config.dataset.image_size,
            resize=config.dataset.resize,
            encoding=None if trained.encoding is None else trained.encoding.to_dict(),
        )
        model = ReportedModel(network, info, _build_model_files(data, report.run))
    explainer = build_run_explainer(data, network, trained.encoding)
    figures = ReportFigures(
        training=_collect_training_figures(config, data, images, trained),
        explainer=explainer if config.tracking.images else None,
        why_no_maps=NO_NETWORK if network is None else "",
        in_use=network is not None,
    )
    return replace(report, figures=figures, model=model)


def _build_model_files(data: PreparedData, run: EvaluatedRun) -> dict[str, str]:
    """Return the files to save with the network, text by name.

    They are the decision rule, and the detector of images that do not resemble the training images.
    """
    detector = out_of_distribution.fit_detector_to_dataset(data)
    files = {} if detector is None else {out_of_distribution.FILE: detector.text()}
    return files | {decision_rule.FILE: run.evaluation.advice().text()}


def _collect_training_figures(
    config: Config, data: PreparedData, images: BalancedSet, trained: TrainingResult
) -> TrainingFigures:
    """Return the data of a training's figures; without images if ``tracking.images`` is false."""
    history = defaultdict(list)
    for epoch in trained.fit.history:
        for name, value in epoch.items():
            history[name].append(value)
    n_samples = None if config.tracking.images else 0

    def count(split: str) -> NDArray[np.int64]:
        return np.bincount(data.labels[data.select_split(split)], minlength=len(data.classes))

    balanced = images.class_counts()
    return TrainingFigures(
        counts=ClassCounts(count("train"), balanced, count("val"), count("test")),
        history=history,
        kept_epoch=trained.fit.best_epoch or None,
        sample_images=trained.sample_images[:n_samples],
        sample_names=[
            format_mixed_label(shares, data.slugs) for shares in trained.sample_labels[:n_samples]
        ],
    )


def _lower_rate(config: Config, fit: FitResult) -> str:
    """Advise to lower the learning rate of the first epoch whose loss is not finite."""
    from melanoma_lab.training.finetuning import plan_stages

    losses = [epoch["train_loss"] + epoch.get("val_loss", 0.0) for epoch in fit.history]
    broken = [epoch for epoch, loss in enumerate(losses) if not math.isfinite(loss)]
    first = min([*broken, max(len(losses) - 1, 0)])
    key = next(phase.rate_key for phase in plan_stages(config) if first in phase.epochs)
    return f"Lower {key}."
