"""A network's training told to MLflow and the terminal, from where an earlier process ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from melanoma_lab import tracking
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import FitProgress
from melanoma_lab.input_pipeline.balancing import BalancedSet
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.runs import run_messages
from melanoma_lab.tasks.extent import Extent
from melanoma_lab.training.checkpoint import Checkpoints
from melanoma_lab.training.circumstances import changed
from melanoma_lab.training.claim import Claim
from melanoma_lab.training.trained import Trained

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.training.session import Parts


def run_begun(claim: Claim, tracker: tracking.Tracker, now: Mapping[str, str]) -> str | None:
    """The MLflow run to go on with; None where there is none, or it would get other bits."""
    begun = claim.begun()
    if begun is None or not tracker.can_continue(begun[0]):
        return None
    run_id, before = begun
    if differences := changed(before, now):
        run_messages.show_restart(run_id, differences)
        return None
    return run_id


def note_begin(claim: Claim, run_id: str, now: Mapping[str, str]) -> None:
    """Note that a run has begun; a disk that cannot take the note costs a warning."""
    try:
        claim.begin(run_id, now)
    except OSError as error:
        run_messages.show_note(f"Were this run interrupted, it could not be continued: {error}.")


def fit_from_checkpoint(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: Parts,
    *,
    tracker: tracking.Tracker,
    claim: Claim,
    begun: str | None,
    extent: Extent,
) -> Trained:
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
    from melanoma_lab.training.fit import epochs_until
    from melanoma_lab.training.session import steps_of, train_network

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)

    resume = config.training.resume
    kept = Checkpoints(claim.folder, run_messages.show_note, final=extent.keep_state)
    with kept if resume else nullcontext() as checkpoints:
        start = checkpoints.newest() if checkpoints and begun else None
        if start is None and extent.after is not None:
            start = Checkpoints(extent.after.folder, run_messages.show_note).newest()
        before = epochs_until(start) if start else []
        if begun:
            run_messages.show_resume(begun, len(before))
        for epoch, figures in enumerate(before, 1):
            record(epoch, figures)  # the process may have ended before it could
        steps = steps_of(config, data, images)
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
