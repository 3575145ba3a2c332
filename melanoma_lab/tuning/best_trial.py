"""Plots and the model of the best trial, from its last checkpoint; nothing is trained again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from melanoma_lab.core.console import show_note
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.models.trivial_classifiers import TrivialClassifier
from melanoma_lab.reports.model_card.content import write_model_card
from melanoma_lab.runs import steps
from melanoma_lab.runs.run_report import RunReport, write_figures
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.runs.training_report import add_figures_and_model, evaluate_training
from melanoma_lab.tracking.logged_model import save_network
from melanoma_lab.tracking.offline_store import ARTIFACTS_FOLDER, MODEL_FOLDER
from melanoma_lab.tracking.run_reader import RunIdentity
from melanoma_lab.tracking.sweep_run import SWEEP_TAG, TRIAL_TAG
from melanoma_lab.tracking.upload import log_artifacts_and_model
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
from melanoma_lab.training.training_result import TrainingResult, fit_trivial_classifier
from melanoma_lab.tuning.trial import Proposal
from melanoma_lab.tuning.trial_runner import TrialRunner


def report_best_trial(trials: TrialRunner, proposal: Proposal) -> None:
    """Log plots and the model to those runs of a trial that have none yet; the plots show val.

    Args:
        trials: the runner of the search's trials.
        proposal: the best trial.
    """
    client = trials.tracker.client
    for repetition in trials.repetitions:
        spec = trials.specify_repetition(proposal, repetition)
        tags = {SWEEP_TAG: trials.sweep, TRIAL_TAG: proposal.trial, "fingerprint": spec.fingerprint}
        found = trials.tracker.find_finished(tags)
        if client is None or found is None or client.list_artifacts(found.run_id, "plots"):
            continue
        lock = trials.get_run_lock(proposal, repetition)
        checkpoint = CheckpointManager(lock.folder, show_note).load_newest()
        if checkpoint is None and not spec.is_trivial:
            show_note(
                f"Trial {proposal.trial} has no plots and no model: its checkpoint is not in the "
                "cache."
            )
            continue
        images = steps.balance_images(spec)
        trained = _restore(spec, images, checkpoint)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / ARTIFACTS_FOLDER).mkdir()
            run = evaluate_training(spec, trained, costs={})
            tracked = client.get_run(found.run_id)
            run = replace(run, metrics=tracked.data.metrics)
            report = add_figures_and_model(RunReport(run), spec, images, trained)
            artifacts = folder / ARTIFACTS_FOLDER
            if report.figures is not None:
                write_figures(run, report.figures, artifacts, f"trial {proposal.trial}")
            if model := report.model:
                save_network(model.network, model.info, folder / MODEL_FOLDER, model.files)
                identity = RunIdentity(found.run_id, tracked.info.start_time, tracked.data.tags)
                write_model_card(run, identity, artifacts)
            log_artifacts_and_model(client, found.run_id, folder)


def _restore(spec: RunSpec, images: BalancedSet, checkpoint: Checkpoint | None) -> TrainingResult:
    """Return the result of a finished trial from its last checkpoint.

    A trivial classifier has no checkpoint; it is fitted again.
    """
    setup = steps.build_setup(spec, images)
    if isinstance(setup, TrivialClassifier):
        return fit_trivial_classifier(setup, spec.data, images, splits=spec.options.splits)
    from melanoma_lab.training.trainer import train_network

    def ignore(*_: Any) -> None:
        """Do nothing: the trial's run already has the metrics of every epoch."""

    return train_network(
        spec.config,
        spec.data,
        images,
        setup,
        on_step=ignore,
        on_epoch=ignore,
        start=checkpoint,
        splits=spec.options.splits,
    )
