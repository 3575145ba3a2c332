"""A network's training told to MLflow and the terminal, from where an earlier process ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from melanoma_lab import tracking
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import FitProgress, show_note
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_lock import RunLock
from melanoma_lab.runs.run_options import RunOptions
from melanoma_lab.training.checkpoint import CheckpointManager
from melanoma_lab.training.environment import describe_changes
from melanoma_lab.training.training_result import TrainingResult

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.training.trainer import TrainingSetup


def find_interrupted_run(
    claim: RunLock, tracker: tracking.Tracker, now: Mapping[str, str]
) -> str | None:
    """The MLflow run to go on with; None where there is none, or it would get other bits."""
    begun = claim.read_interrupted_run()
    if begun is None or not tracker.can_resume(begun[0]):
        return None
    run_id, before = begun
    if differences := describe_changes(before, now):
        run_messages.show_restart(run_id, differences)
        return None
    return run_id


def record_begin(claim: RunLock, run_id: str, now: Mapping[str, str]) -> None:
    """Note that a run has begun; a disk that cannot take the note costs a warning."""
    try:
        claim.begin(run_id, now)
    except OSError as error:
        show_note(f"Were this run interrupted, it could not be continued: {error}.")


def fit_with_checkpoints(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: TrainingSetup,
    *,
    tracker: tracking.Tracker,
    claim: RunLock,
    begun: str | None,
    extent: RunOptions,
) -> TrainingResult:
    """Train, telling MLflow and the terminal, with a checkpoint an epoch.

    Args:
        config: the checked configuration.
        data: the split dataset.
        images: what balancing made of its training split.
        parts: network, augmentation and optimizer.
        tracker: with a run under way.
        claim: to that run.
        begun: the run's id where an earlier process began it; None: it is new.
        extent: how much is measured and kept.
    """
    from melanoma_lab.training.fit import read_history
    from melanoma_lab.training.trainer import count_epoch_steps, train_network

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)

    resume = config.training.resume
    kept = CheckpointManager(claim.folder, show_note, final=extent.keep_state)
    with kept if resume else nullcontext() as checkpoints:
        start = checkpoints.load_newest() if checkpoints and begun else None
        if start is None and extent.after is not None:
            start = CheckpointManager(extent.after.folder, show_note).load_newest()
        before = read_history(start) if start else []
        if begun:
            run_messages.show_resume(begun, len(before))
        for epoch, figures in enumerate(before, 1):
            record(epoch, figures)  # the process may have ended before it could
        steps = count_epoch_steps(config, data, images)
        epochs = config.training.last_epoch
        with FitProgress(epochs, steps, done=len(before), said=extent.said) as progress:

            def tell(epoch: int, figures: Mapping[str, float]) -> None:
                record(epoch, figures)
                progress.epoch(epoch, figures)

            return train_network(
                config,
                data,
                images,
                parts,
                on_step=progress.step,
                on_epoch=tell,
                on_fitted=progress.begin_evaluation,
                start=start,
                checkpoints=checkpoints,
                splits=extent.splits,
            )
