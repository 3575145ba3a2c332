"""Train one arm: prepare, balance, fit, predict, measure, record, tell."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from melanoma_lab import __version__, summary, tracking
from melanoma_lab.balancing import BalancedSet, balance
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import fingerprint, resolved
from melanoma_lab.config.schema import Config, KFold
from melanoma_lab.console import FitProgress, progress_of
from melanoma_lab.data.cache import cache_folder
from melanoma_lab.data.prepare import PreparedData, prepare_data
from melanoma_lab.data.split import SPLITS
from melanoma_lab.errors import RunError
from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.metrics import absent_classes
from melanoma_lab.evaluation.outcome import outcome
from melanoma_lab.evaluation.plot_training import ClassCounts
from melanoma_lab.evaluation.plots import save_plots
from melanoma_lab.evaluation.summary import run_metrics
from melanoma_lab.training.backend import available_threads, describe_device, start_backend


def train_arm(config: Config, arm: Arm) -> str:
    """Train, evaluate and track one arm.

    Args:
        config: the checked configuration.
        arm: what a study calls it.

    Returns:
        The id of its MLflow run.

    Raises:
        UserError: the configuration or the data cannot be used; no run is recorded.
        RunError: the run diverged or ran out of memory; it is recorded as FAILED.
    """
    connecting = tracking.connect(config.tracking, config.study)
    threads = config.training.threads or available_threads()
    cache = cache_folder(config.cache)
    summary.show_headline(config, arm)
    with progress_of("preparing images") as tell:
        data = prepare_data(config, cache=cache, threads=threads, progress=tell)
    summary.show_data(data)
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
    tracker = connecting.result()
    tags = _tags(config, arm, data, threads)
    params = tracking.flatten(resolved(config))
    with tracker.run(f"{arm.name} seed={config.seed}", tags, params) as run_id:
        _train_and_record(config, data, images, tracker)
    summary.show_where(config, run_id)
    return run_id


def _train_and_record(
    config: Config, data: PreparedData, images: BalancedSet, tracker: tracking.Tracker
) -> None:
    """The part of a run that MLflow watches."""
    from melanoma_lab.training.session import steps_of, train_network

    with FitProgress(config.training.epochs, steps_of(config, data, images)) as progress:

        def record(epoch: int, figures: Mapping[str, float]) -> None:
            tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)
            progress.epoch(epoch, figures)

        trained = train_network(config, data, images, on_step=progress.step, on_epoch=record)

    fit = trained.fit
    metrics = {
        "parameters": float(trained.network.count_params()),
        "fit_seconds": fit.seconds,
        "optimizer_steps": float(fit.optimizer_steps),
        "best_epoch": float(fit.best_epoch),
    }
    tracker.log_metrics(metrics)
    if trained.probabilities is None:
        tracker.set_tags({"outcome": "diverged"})
        raise RunError(f"diverged: {fit.diverged}; lower optimizer.learning_rate.")

    table = predictions.build(
        image_ids=list(data.manifest["image_id"]),
        groups=list(data.manifest["group"]),
        splits=list(data.manifest["split"]),
        labels=data.labels,
        probabilities=trained.probabilities,
        slugs=data.slugs,
    )
    metrics |= run_metrics(table, data.melanoma)
    tracker.log_metrics(metrics)
    learned = outcome(table)
    verdict = "diverged" if fit.diverged else learned.verdict
    absent = {
        split: names
        for split in SPLITS
        if (names := absent_classes(predictions.split_arrays(table, split)[0], data.slugs))
    }
    tracker.set_tags(
        {"outcome": verdict, **{f"absent/{s}": ", ".join(names) for s, names in absent.items()}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        OmegaConf.save(OmegaConf.create(resolved(config)), folder / "config.yaml")
        data.manifest.to_csv(folder / "manifest.csv", index=False)
        data.findings.write(folder / "audit.json")
        predictions.write_csv(table, folder / "predictions.csv")
        history = defaultdict(list)
        for figures in fit.history:
            for name, value in figures.items():
                history[name].append(value)
        save_plots(
            folder / "plots",
            table=table,
            history=history,
            kept_epoch=fit.best_epoch,
            counts=_class_counts(data, images),
            sample_images=trained.sample_images,
            sample_names=[data.slugs[label] for label in trained.sample_labels],
            melanoma=data.melanoma,
        )
        tracker.log_folder(folder)
    if config.tracking.model:
        tracker.log_network(trained.network)
    summary.show_results(metrics, data, epochs=len(fit.history), absent=absent)
    if fit.diverged:
        raise RunError(
            f"diverged: {fit.diverged}; the best epoch before that was kept and measured. "
            "Lower optimizer.learning_rate."
        )
    summary.show_outcome(learned)


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


def _class_counts(data: PreparedData, images: BalancedSet) -> ClassCounts:
    """Images per class: in each split, and in what an epoch draws from."""

    def count(split: str) -> np.ndarray:
        return np.bincount(data.labels[data.of_split(split)], minlength=len(data.classes))

    return ClassCounts(
        train=count("train"), epoch=images.class_counts(), val=count("val"), test=count("test")
    )
