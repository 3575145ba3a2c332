"""What a training left behind, as the predictions table, metrics, plots and model of its run."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.patient_metadata import PatientEncoder
from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.chance_check import compare_with_chance
from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation, evaluate_clinically
from melanoma_lab.evaluation.predictions import Predictions, build_predictions
from melanoma_lab.evaluation.run_metrics import compute_run_metrics, find_absent_classes
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.plots.run_figures import save_run_figures
from melanoma_lab.plots.training_figures import ClassCounts, format_mixed_label
from melanoma_lab.reports.error_analysis.analysis import write_error_analysis
from melanoma_lab.reports.error_analysis.explainers import NO_NETWORK, build_run_explainer
from melanoma_lab.reports.model_card.card_data import ModelCardData, format_day
from melanoma_lab.reports.model_card.pages import write_model_card
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_spec import RunOptions
from melanoma_lab.tracking import Tracker
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.training.training_result import FitResult, TrainingResult


def report_training(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    trained: TrainingResult,
    tracker: Tracker,
    *,
    extent: RunOptions,
) -> dict[str, float]:
    """Measure, draw, keep and show what a training came to.

    A trivial arm keeps no model: what it predicts is in its table.

    Returns:
        The metrics.

    Raises:
        RunError: the training diverged; what could be measured has been recorded.
    """
    fit = trained.fit
    metrics = {
        "parameters": float(trained.parameters),
        "fit_seconds": fit.seconds,
        "optimizer_steps": float(fit.optimizer_steps),
        "best_epoch": float(fit.best_epoch),
    }
    if fit.trainable is not None:
        metrics["trainable_parameters"] = float(fit.trainable)
    if trained.probabilities is None:
        tracker.log_metrics(metrics)
        tracker.set_tags({"outcome": "diverged"})
        raise RunError(
            f"diverged: {trained.diverged}; nothing could be measured. {_lower_rate(config, fit)}"
        )

    lines = extent.said is None
    predictions = build_run_predictions(data, trained, extent.splits)
    with show_progress("computing metrics", line=lines):
        judgement = evaluate_training(config, data, predictions)
        metrics |= compute_run_metrics(predictions, data.melanoma, splits=extent.splits)
        metrics |= judgement.metrics()
    learned = compare_with_chance(predictions)
    absent = find_absent_classes(predictions, extent.splits or SPLITS)
    tracker.log_metrics(metrics)
    tracker.set_tags(
        {
            "outcome": "diverged" if fit.diverged else learned.verdict,
            **{f"absent/{split}": ", ".join(slugs) for split, slugs in absent.items()},
        }
    )
    keeps_model = config.tracking.model and extent.pictures and trained.network is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        OmegaConf.save(OmegaConf.create(config_to_dict(config)), folder / "config.yaml")
        predictions.write(folder / "predictions.csv")
        judgement.write(folder)
        if keeps_model:
            facts = build_card_data(
                *(config, data, predictions, judgement, metrics),
                run_id=tracker.run_id,
                started=tracker.started,
                tags=tracker.tags,
            )
            write_model_card(facts, folder)
        if trained.encoding is not None:
            described = json.dumps(trained.encoding.to_dict(), indent=2)
            (folder / "metadata.json").write_text(described + "\n", encoding="utf-8")
        if extent.pictures:
            data.manifest.to_csv(folder / "manifest.csv", index=False)
            data.findings.write(folder / "audit.json")
            with show_progress("drawing figures", line=lines):
                draw_run(
                    folder,
                    data,
                    images,
                    trained,
                    predictions=predictions,
                    judgement=judgement,
                    name=tracker.run_name,
                    images_kept=config.tracking.images,
                )
        tracker.log_folder(folder)
    if keeps_model:
        card = build_model_info(config, data, trained.encoding)
        with show_progress("saving the network", line=lines):
            tracker.log_network(trained.network, card, build_model_files(data, judgement))
    if lines:
        run_messages.show_results(metrics, data, epochs=len(fit.history), absent=absent)
        run_messages.show_clinical_evaluation(judgement)
    if fit.diverged:  # after a good epoch, or there were no probabilities
        raise RunError(
            f"diverged: {fit.diverged}; the best epoch before that was kept and measured. "
            f"{_lower_rate(config, fit)}"
        )
    if trained.network is not None and lines:  # a trivial arm may be at chance
        run_messages.show_chance_check(learned)
    return metrics


def _lower_rate(config: Config, fit: FitResult) -> str:
    """Which learning rate was too high: that of the first epoch with a loss that is no number."""
    from melanoma_lab.training.finetuning_stages import plan_stages

    losses = [epoch["train_loss"] + epoch.get("val_loss", 0.0) for epoch in fit.history]
    broken = [epoch for epoch, loss in enumerate(losses) if not math.isfinite(loss)]
    first = min([*broken, max(len(losses) - 1, 0)])
    key = next(phase.rate_key for phase in plan_stages(config) if first in phase.epochs)
    return f"Lower {key}."


def build_card_data(
    config: Config,
    data: PreparedData,
    predictions: Predictions,
    judgement: ClinicalEvaluation,
    metrics: Mapping[str, float],
    *,
    run_id: str,
    started: int,
    tags: Mapping[str, str],
) -> ModelCardData:
    """What a run's model card is written from, while it is at hand.

    Args:
        config: that it was trained with.
        data: the split dataset.
        predictions: its own.
        judgement: of them.
        metrics: by name.
        run_id: MLflow's.
        started: when it began, in milliseconds since 1970.
        tags: as tracked.
    """
    return ModelCardData(
        run_id=run_id,
        day=format_day(started),
        tags=tags,
        metrics=metrics,
        config=config_to_dict(config),
        predictions=predictions,
        manifest=data.manifest,
        melanoma=data.melanoma,
        audit=data.findings.as_json(),
        judgement=judgement,
    )


def build_model_info(
    config: Config, data: PreparedData, encoding: PatientEncoder | None
) -> ModelInfo:
    """What a network says about itself that was trained on a dataset, with metadata or without."""
    return ModelInfo(
        slugs=data.slugs,
        classes=data.classes,
        melanoma=data.melanoma,
        dataset=config.dataset.name,
        image_size=config.dataset.image_size,
        resize=config.dataset.resize,
        encoding=None if encoding is None else encoding.to_dict(),
    )


def build_model_files(data: PreparedData, judgement: ClinicalEvaluation) -> dict[str, str]:
    """Name -> text of what lies beside a network that was trained on a dataset.

    How its answers are to be read, and, from its training and validation images, what pictures must
    look like for it to be of use.
    """
    looks = out_of_distribution.fit_detector_to_dataset(data)
    beside = {} if looks is None else {out_of_distribution.FILE: looks.text()}
    return beside | {decision_rule.FILE: judgement.advice().text()}


def build_run_predictions(
    data: PreparedData, trained: TrainingResult, splits: Sequence[str] | None
) -> Predictions:
    """Return what a training predicts for the splits that it was applied to; None: all."""
    if trained.probabilities is None:
        raise ValueError("Expected finite probabilities. Received those of a diverged training.")
    measured = data.select_splits(splits)
    manifest = data.manifest.iloc[measured]
    return build_predictions(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels[measured],
        probabilities=trained.probabilities,
        slugs=data.slugs,
    )


def evaluate_training(
    config: Config, data: PreparedData, predictions: Predictions
) -> ClinicalEvaluation:
    """The judgement of what a training predicts."""
    return evaluate_clinically(
        predictions,
        data.melanoma,
        sensitivity=config.evaluation.sensitivity,
        manifest=data.manifest,
    )


def draw_run(
    folder: Path,
    data: PreparedData,
    images: BalancedSet,
    trained: TrainingResult,
    *,
    predictions: Predictions,
    judgement: ClinicalEvaluation,
    name: str,
    images_kept: bool,
) -> None:
    """Draw a run into a folder: ``plots`` and ``mistakes.html``.

    Of a table without test, val is shown. Images of the dataset are, unless they are not to be
    kept.
    """
    history = defaultdict(list)
    for figures in trained.fit.history:
        for figure, value in figures.items():
            history[figure].append(value)
    n_samples = None if images_kept else 0
    save_run_figures(
        folder / "plots",
        predictions=predictions,
        history=history,
        kept_epoch=trained.fit.best_epoch or None,
        counts=_class_counts(data, images),
        sample_images=trained.sample_images[:n_samples],
        sample_names=[
            format_mixed_label(shares, data.slugs) for shares in trained.sample_labels[:n_samples]
        ],
        melanoma=data.melanoma,
        judgement=judgement,
        in_use=trained.network is not None,
    )
    write_error_analysis(
        folder,
        name=name,
        table=predictions.table,
        judgement=judgement,
        melanoma=data.melanoma,
        manifest=data.manifest,
        audit=data.findings.as_json(),
        looking=build_run_explainer(data, trained.network, trained.encoding)
        if images_kept
        else None,
        why_no_maps=NO_NETWORK if trained.network is None else "",
    )


def _class_counts(data: PreparedData, images: BalancedSet) -> ClassCounts:
    """Images per class: in each split, and in what an epoch draws from."""

    def count(split: str) -> NDArray[np.int64]:
        return np.bincount(data.labels[data.select_split(split)], minlength=len(data.classes))

    return ClassCounts(
        train=count("train"), balanced=images.class_counts(), val=count("val"), test=count("test")
    )
