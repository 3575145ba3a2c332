"""The report of a training: evaluate its predictions, log them and print the results."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, compare_with_chance, evaluate_run
from melanoma_lab.evaluation.predictions import Predictions, build_predictions
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.plots.training_figures import ClassCounts, TrainingFigures, format_mixed_label
from melanoma_lab.reports.error_analysis.explained_images import NO_NETWORK, build_run_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportedModel, ReportFigures, RunReport, log_report
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.tracker import Tracker
from melanoma_lab.training.training_result import FitResult, TrainingResult


def report_training(
    spec: RunSpec, images: BalancedSet, trained: TrainingResult, tracker: Tracker
) -> Mapping[str, float]:
    """Evaluate a training result, log it to MLflow and print it.

    Args:
        spec: what was trained.
        images: the training split after balancing.
        trained: the result of the training.
        tracker: MLflow's side, with the run under way.

    Returns:
        The metrics by name.

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
        trained: the result of the training, with probabilities.
        costs: metrics that ``count_costs`` returned; empty if they are known already.
    """
    config, data, splits = spec.config, spec.data, spec.options.splits
    return evaluate_run(
        config_to_dict(config),
        build_run_predictions(data, trained, splits),
        data.manifest,
        audit=data.findings.as_json(),
        positive_class=data.positive_class,
        sensitivity=config.evaluation.sensitivity,
        splits=splits,
        costs=costs,
    )


def build_run_predictions(
    data: PreparedData, trained: TrainingResult, splits: Sequence[str] | None
) -> Predictions:
    """Return the predictions of a training.

    Args:
        data: the split dataset.
        trained: the result of the training, with probabilities.
        splits: the splits that were predicted; None: all.

    Raises:
        ValueError: the training diverged and has no probabilities.
    """
    if trained.probabilities is None:
        raise ValueError("Expected finite probabilities. Received those of a diverged training.")
    selected = data.select_splits(splits)
    manifest = data.manifest.iloc[selected]
    return build_predictions(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels[selected],
        probabilities=trained.probabilities,
        slugs=data.slugs,
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
        info = _build_model_info(config, data, trained.encoding)
        model = ReportedModel(network, info, _build_model_files(data, report.run))
    explainer = build_run_explainer(data, network, trained.encoding)
    figures = ReportFigures(
        training=_collect_training_figures(config, data, images, trained),
        explainer=explainer if config.tracking.images else None,
        why_no_maps=NO_NETWORK if network is None else "",
        in_use=network is not None,
    )
    return replace(report, figures=figures, model=model)


def _build_model_info(
    config: Config, data: PreparedData, encoding: PatientEncoder | None
) -> ModelInfo:
    """Describe a network's inputs and outputs."""
    return ModelInfo(
        slugs=data.slugs,
        classes=data.classes,
        positive_class=data.positive_class,
        dataset=config.dataset.name,
        image_size=config.dataset.image_size,
        resize=config.dataset.resize,
        encoding=None if encoding is None else encoding.to_dict(),
    )


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
    return TrainingFigures(
        counts=_count_classes(data, images),
        history=history,
        kept_epoch=trained.fit.best_epoch or None,
        sample_images=trained.sample_images[:n_samples],
        sample_names=[
            format_mixed_label(shares, data.slugs) for shares in trained.sample_labels[:n_samples]
        ],
    )


def _count_classes(data: PreparedData, images: BalancedSet) -> ClassCounts:
    """Count images of each class, in each split and in the balanced training split."""

    def count(split: str) -> NDArray[np.int64]:
        return np.bincount(data.labels[data.select_split(split)], minlength=len(data.classes))

    return ClassCounts(
        train=count("train"), balanced=images.class_counts(), val=count("val"), test=count("test")
    )


def _lower_rate(config: Config, fit: FitResult) -> str:
    """Advise to lower the learning rate of the first epoch whose loss is not finite."""
    from melanoma_lab.training.finetuning_stages import plan_stages

    losses = [epoch["train_loss"] + epoch.get("val_loss", 0.0) for epoch in fit.history]
    broken = [epoch for epoch, loss in enumerate(losses) if not math.isfinite(loss)]
    first = min([*broken, max(len(losses) - 1, 0)])
    key = next(phase.rate_key for phase in plan_stages(config) if first in phase.epochs)
    return f"Lower {key}."
