"""Train one arm: prepare, balance, connect, fit; what came out is recorded by ``record``."""

from __future__ import annotations

from collections.abc import Mapping
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

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.training.session import Parts


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
        RunError: the run diverged or ran out of memory; it is recorded as FAILED.
    """
    threads = config.training.threads or available_threads()
    cache = cache_folder(config.cache)
    summary.show_headline(config, arm)
    with progress_of("preparing images") as tell:
        data = prepare_data(config, cache=cache, threads=threads, progress=tell)
    summary.show_data(data)
    # Takes seconds, as TensorFlow's import does; both while images are being balanced.
    connecting = tracking.connect(config.tracking, config.study)
    if skip_finished:
        same = fingerprint(config, dataset_digest=data.digest, split_hash=data.split_hash)
        if finished := connecting.result().finished_run(same):
            summary.show_skipped(finished)
            return finished
    with progress_of("balancing") as tell:
        images = balance(
            config.balancing,
            data.training_split(),
            seed=config.seed,
            cache_dir=cache,
            workers=threads,
            progress=tell,
        )
    start_backend(threads=threads, seed=config.seed, precision=config.training.precision)
    from melanoma_lab.training.session import assemble

    parts = assemble(config, len(data.classes))
    tracker = connecting.result()
    tags = _tags(config, arm, data, threads)
    params = tracking.flatten(resolved(config))
    with tracker.run(f"{arm.name} seed={config.seed}", tags, params) as run_id:
        _train_and_record(config, data, images, parts, tracker)
    summary.show_where(config, run_id)
    return run_id


def _train_and_record(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    parts: Parts,
    tracker: tracking.Tracker,
) -> None:
    """The part of a run that MLflow watches."""
    from melanoma_lab.training.session import steps_of, train_network

    with FitProgress(config.training.epochs, steps_of(config, data, images)) as progress:

        def record(epoch: int, figures: Mapping[str, float]) -> None:
            tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)
            progress.epoch(epoch, figures)

        trained = train_network(config, data, images, parts, on_step=progress.step, on_epoch=record)

    # Imported now: plotting and statistics would only delay the first step.
    from melanoma_lab.tasks.record import record_results

    record_results(config, data, images, trained, tracker)


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
        "source_tells_class": _figure(data.findings.sources.pairwise_accuracy),
        "notes": " ".join(data.notes),
        "git_commit": tracking.git_commit(),
        "melanoma_lab": __version__,
        "threads": str(threads),
        "device": describe_device(),
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
