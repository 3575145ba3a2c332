"""Fit a network with checkpoints, log each epoch, and resume interrupted runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from melanoma_lab.core.console import FitProgress, show_note
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_lock import RunLock
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.tracking.tracker import Tracker
from melanoma_lab.training.checkpoint import CheckpointManager
from melanoma_lab.training.environment import describe_changes
from melanoma_lab.training.training_result import TrainingResult

if TYPE_CHECKING:  # this import would load TensorFlow
    from melanoma_lab.training.trainer import TrainingSetup


def find_interrupted_run(
    lock: RunLock, tracker: Tracker, environment: Mapping[str, str]
) -> str | None:
    """Return the id of the MLflow run to resume.

    Args:
        lock: the lock of the run, which this process holds.
        tracker: the connected tracker.
        environment: this process's environment, as ``describe_environment`` returns it.

    Returns:
        The run's id; None if there is no such run, or if the environment has changed, so that its
        results could differ in their bits.
    """
    interrupted = lock.read_interrupted_run()
    if interrupted is None or not tracker.can_resume(interrupted[0]):
        return None
    run_id, before = interrupted
    if differences := describe_changes(before, environment):
        run_messages.show_restart(run_id, differences)
        return None
    return run_id


def record_begin(lock: RunLock, run_id: str, environment: Mapping[str, str]) -> None:
    """Write a note of the run into the checkpoints' folder; print a warning if that fails."""
    try:
        lock.record_run(run_id, environment)
    except OSError as error:
        show_note(f"If this run is interrupted, it cannot be resumed: {error}.")


def fit_with_checkpoints(
    spec: RunSpec,
    setup: TrainingSetup,
    images: BalancedSet,
    *,
    tracker: Tracker,
    lock: RunLock,
    resumed: str | None,
    continue_from: RunLock | None,
) -> TrainingResult:
    """Fit a network, log every epoch to MLflow and the terminal, and write checkpoints.

    Args:
        spec: description of the run.
        setup: network, augmentation and optimizer.
        images: the training split after balancing.
        tracker: the tracker that records the run.
        lock: the lock of the run; its folder takes the checkpoints.
        resumed: id of the interrupted MLflow run that is continued; None: the run is new.
        continue_from: the lock of a run whose last checkpoint this one starts from, if any.
    """
    from melanoma_lab.training.fit import read_history
    from melanoma_lab.training.trainer import count_epoch_steps, train_network

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)

    training, options = spec.config.training, spec.options
    manager = CheckpointManager(lock.folder, show_note, final=options.keep_checkpoints)
    with manager if training.resume else nullcontext() as checkpoints:
        start = checkpoints.load_newest() if checkpoints and resumed else None
        if start is None and continue_from is not None:
            start = CheckpointManager(continue_from.folder, show_note).load_newest()
        before = read_history(start) if start else []
        if resumed:
            run_messages.show_resume(resumed, len(before))
        for epoch, figures in enumerate(before, 1):
            record(epoch, figures)  # the interrupted process may not have sent them
        steps = count_epoch_steps(spec.config, spec.data, images)
        epochs = training.last_epoch
        with FitProgress(epochs, steps, done=len(before), said=options.progress_prefix) as progress:

            def tell(epoch: int, figures: Mapping[str, float]) -> None:
                record(epoch, figures)
                progress.epoch(epoch, figures)

            return train_network(
                spec.config,
                spec.data,
                images,
                setup,
                on_step=progress.step,
                on_epoch=tell,
                on_fitted=progress.begin_evaluation,
                start=start,
                checkpoints=checkpoints,
                splits=options.splits,
            )
