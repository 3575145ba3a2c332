"""Plots and the model of the best trial, from its last checkpoint; nothing is trained again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.trivial_classifiers import TrivialArchitecture
from melanoma_lab.core.console import show_note
from melanoma_lab.input_pipeline.balancing.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.balancing.strategies import balance
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.trivial_classifiers import build_trivial_classifier
from melanoma_lab.reports.model_card.content import write_model_card
from melanoma_lab.reports.model_card.run_identity import RunIdentity
from melanoma_lab.runs.run_report import RunReport, write_figures
from melanoma_lab.runs.training_report import add_figures_and_model, evaluate_training
from melanoma_lab.tracking.logged_model import save_network
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, MODEL_FOLDER
from melanoma_lab.tracking.sweep_run import SWEEP_TAG, TRIAL_TAG
from melanoma_lab.tracking.upload import log_artifacts_and_model
from melanoma_lab.training.backend import start_backend
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.hardware import require_device_count
from melanoma_lab.training.training_result import TrainingResult
from melanoma_lab.training.trivial_fit import fit_trivial_classifier
from melanoma_lab.tuning.trial import TRIAL_SPLITS, Proposal, TrialRunner


def report_best_trial(trials: TrialRunner, proposal: Proposal) -> None:
    """Log plots and the model to those runs of a trial that have none yet; the plots show val.

    Args:
        trials: the runner of the search's trials.
        proposal: the best trial.
    """
    client = trials.tracker.client
    for part in trials.parts:
        spec = trials.specify_repetition(proposal, part)
        config, data = spec.config, spec.data
        tags = {SWEEP_TAG: trials.sweep, TRIAL_TAG: proposal.trial, "fingerprint": spec.fingerprint}
        found = trials.tracker.find_finished(tags)
        if client is None or found is None or client.list_artifacts(found.run_id, "plots"):
            continue
        lock = trials.get_run_lock(proposal, part)
        checkpoint = CheckpointManager(lock.folder, show_note).load_newest()
        if checkpoint is None and not isinstance(config.architecture, TrivialArchitecture):
            show_note(
                f"Trial {proposal.trial} has no plots and no model: its state is not in the cache."
            )
            continue
        images = balance(
            config.balancing,
            data.training_split(),
            seed=config.seed,
            cache_dir=trials.cache,
            workers=trials.threads,
        )
        trained = _restore(config, data, images, checkpoint, trials.threads)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / ARTIFACTS_FOLDER).mkdir()
            run = evaluate_training(config, data, trained, splits=TRIAL_SPLITS, costs={})
            tracked = client.get_run(found.run_id)
            run = replace(run, metrics=tracked.data.metrics)
            report = add_figures_and_model(RunReport(run), config, data, images, trained)
            artifacts = folder / ARTIFACTS_FOLDER
            if report.figures is not None:
                write_figures(run, report.figures, artifacts, f"trial {proposal.trial}")
            if model := report.model:
                save_network(model.network, model.info, folder / MODEL_FOLDER, model.files)
                identity = RunIdentity(found.run_id, tracked.info.start_time, tracked.data.tags)
                write_model_card(run, identity, artifacts)
            log_artifacts_and_model(client, found.run_id, folder)


def _restore(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    checkpoint: Checkpoint | None,
    threads: int,
) -> TrainingResult:
    """Return the result of a finished trial from its last checkpoint.

    A trivial classifier has no checkpoint; it is fitted again.
    """
    if isinstance(config.architecture, TrivialArchitecture):
        model = build_trivial_classifier(config.architecture, data)
        return fit_trivial_classifier(model, data, images, splits=TRIAL_SPLITS)
    from melanoma_lab.training.trainer import build_training_setup, train_network

    start_backend(
        threads=threads,
        seed=config.seed,
        precision=config.training.precision,
        devices=require_device_count(config.training),
    )

    def ignore(*_: Any) -> None:
        """Do nothing: the trial's run already has the metrics of every epoch."""

    return train_network(
        config,
        data,
        images,
        build_training_setup(config, data, images, splits=TRIAL_SPLITS),
        on_step=ignore,
        on_epoch=ignore,
        start=checkpoint,
        splits=TRIAL_SPLITS,
    )
