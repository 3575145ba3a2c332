"""Train one arm: prepare, claim, balance, connect, fit; ``record`` records what came out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TYPE_CHECKING

from melanoma_lab import __version__, summary, tracking
from melanoma_lab.balancing import BalancedSet, balance
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import fingerprint, resolved
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.split import KFold
from melanoma_lab.console import FitProgress, progress_of
from melanoma_lab.data.cache import cache_folder
from melanoma_lab.data.prepare import PreparedData, prepare_data
from melanoma_lab.training.backend import available_threads, describe_device, start_backend
from melanoma_lab.training.checkpoint import Checkpoints
from melanoma_lab.training.circumstances import changed, circumstances
from melanoma_lab.training.claim import Claim, claimed

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.training.session import Parts, Trained


def train_arm(config: Config, arm: Arm, *, skip_finished: bool = False) -> str:
    """Train, evaluate and track one arm.

    Args:
        config: the checked configuration.
        arm: what a study calls it.
        skip_finished: do nothing where the study has a finished run of the same fingerprint.

    Returns:
        The id of its MLflow run.

    Raises:
        UserError: the configuration or the data cannot be used; no run is recorded.
        RunError: the run diverged or ran out of memory, and is recorded as FAILED; or another
            process is training it.
    """
    threads = config.training.threads or available_threads()
    cache = cache_folder(config.cache)
    summary.show_headline(config, arm)
    with progress_of("preparing images") as tell:
        data = prepare_data(config, cache=cache, threads=threads, progress=tell)
    summary.show_data(data)
    same = fingerprint(config, dataset_digest=data.digest, split_hash=data.split_hash)
    with claimed(
        cache,
        study=config.study,
        tracked=tracking.place(config.tracking.uri),
        fingerprint=same,
        wait=summary.show_waiting if skip_finished else None,
    ) as claim:
        # Takes seconds, as TensorFlow's import does; both while images are being balanced.
        connecting = tracking.connect(config.tracking, config.study)
        if skip_finished and (finished := connecting.result().finished_run(same)):
            claim.forget()
            summary.show_skipped(finished)
            return finished
        run_id = _train_claimed(config, arm, data, claim, connecting, threads=threads)
    summary.show_where(config, run_id)
    return run_id


def _train_claimed(
    config: Config,
    arm: Arm,
    data: PreparedData,
    claim: Claim,
    connecting: Future[tracking.Tracker],
    *,
    threads: int,
) -> str:
    """Train a run that no other process is at, from where an earlier one ended."""
    with progress_of("balancing") as tell:
        images = balance(
            config.balancing,
            data.training_split(),
            seed=config.seed,
            cache_dir=cache_folder(config.cache),
            workers=threads,
            progress=tell,
        )
    start_backend(threads=threads, seed=config.seed, precision=config.training.precision)
    from melanoma_lab.training.session import assemble

    parts = assemble(config, len(data.classes))
    tracker = connecting.result()
    tags = _tags(config, arm, data, threads)
    params = tracking.flatten(resolved(config))
    now = circumstances(threads)
    begun = _begun(claim, tracker, now) if config.training.resume else None
    if begun is None:
        claim.forget()
    name = f"{arm.name} seed={config.seed}"
    with tracker.run(name, tags, params, continuing=begun) as run_id:
        if config.training.resume:
            _begin(claim, run_id, now)
        trained = _fit(config, data, images, parts, tracker=tracker, claim=claim, begun=begun)
        if trained.fit.diverged:
            claim.forget()  # it would diverge again
        # Imported now: plotting and statistics would only delay the first step.
        from melanoma_lab.tasks.record import record_results

        record_results(config, data, images, trained, tracker)
    claim.forget()
    return run_id


def _begun(claim: Claim, tracker: tracking.Tracker, now: Mapping[str, str]) -> str | None:
    """The MLflow run to go on with; None where there is none, or it would get other bits."""
    begun = claim.begun()
    if begun is None or not tracker.can_continue(begun[0]):
        return None
    run_id, before = begun
    if differences := changed(before, now):
        summary.show_restart(run_id, differences)
        return None
    return run_id


def _begin(claim: Claim, run_id: str, now: Mapping[str, str]) -> None:
    """Note that a run has begun; a disk that cannot take the note costs a warning."""
    try:
        claim.begin(run_id, now)
    except OSError as error:
        summary.show_note(f"Were this run interrupted, it could not be continued: {error}.")


def _fit(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: Parts,
    *,
    tracker: tracking.Tracker,
    claim: Claim,
    begun: str | None,
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
    """
    from melanoma_lab.training.fit import epochs_until
    from melanoma_lab.training.session import steps_of, train_network

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)

    resume = config.training.resume
    with Checkpoints(claim.folder, summary.show_note) if resume else nullcontext() as checkpoints:
        start = checkpoints.newest() if checkpoints and begun else None
        before = epochs_until(start) if start else []
        if begun:
            summary.show_continuing(begun, len(before))
        for epoch, figures in enumerate(before, 1):
            record(epoch, figures)  # the process may have ended before it could
        steps = steps_of(config, data, images)
        with FitProgress(config.training.epochs, steps, done=len(before)) as progress:

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
                start=start,
                checkpoints=checkpoints,
            )


def _tags(config: Config, arm: Arm, data: PreparedData, threads: int) -> dict[str, str]:
    """What a run is searched, grouped and compared by."""
    return {
        "study": config.study,
        "experiment": arm.preset,
        "arm": arm.name,
        "reference": config.reference or "",
        "seed": str(config.seed),
        "fold": str(config.split.fold) if isinstance(config.split, KFold) else "0",
        "fingerprint": fingerprint(config, dataset_digest=data.digest, split_hash=data.split_hash),
        "split_hash": data.split_hash,
        "dataset": config.dataset.name,
        "dataset_digest": data.digest,
        "audit_digest": data.findings.digest,
        "protocol": data.protocol,
        "notes": " ".join(data.notes),
        "git_commit": tracking.git_commit(),
        "melanoma_lab": __version__,
        "threads": str(threads),
        "device": describe_device(),
    }
