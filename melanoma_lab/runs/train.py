"""Train one arm: prepare, claim, balance, connect, fit; ``run_report`` records what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from melanoma_lab import tracking
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.trivial_classifiers import TrivialArchitecture
from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.cache import get_cache_folder
from melanoma_lab.data.split import TRAIN, VAL
from melanoma_lab.input_pipeline.balancing import BalancedSet, balance
from melanoma_lab.input_pipeline.prepare import PreparedData, prepare_data
from melanoma_lab.models.pretrained.weight_files import find_weights
from melanoma_lab.models.trivial_classifiers import TrivialClassifier, build_trivial_classifier
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.identity import build_run_tags, fingerprint_run, name_run
from melanoma_lab.runs.resume import find_interrupted_run, fit_with_checkpoints, record_begin
from melanoma_lab.runs.run_lock import RunLock, acquire_run_lock
from melanoma_lab.runs.run_options import WHOLE_RUN, RunOptions
from melanoma_lab.training.backend import choose_threads, start_backend
from melanoma_lab.training.environment import describe_changes, describe_environment
from melanoma_lab.training.hardware import (
    detect_hardware,
    require_device_count,
    resolve_hardware_options,
)
from melanoma_lab.training.training_result import TrainingResult
from melanoma_lab.training.trivial_fit import fit_trivial_classifier

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.training.trainer import TrainingSetup


def train_arm(
    config: Config, arm: Arm, *, skip_finished: bool = False, side_by_side: int = 1
) -> str:
    """Train, evaluate and track one arm.

    Args:
        config: the checked configuration.
        arm: what a study calls it.
        skip_finished: do nothing where the study has a finished run of the same fingerprint.
        side_by_side: runs that are trained at once on this machine and share its threads, where
            ``training.threads`` does not say how many this one takes.

    Returns:
        The id of its MLflow run.

    Raises:
        UserError: the configuration or the data cannot be used; no run is recorded.
        RunError: the run diverged or ran out of memory, and is recorded as FAILED; or another
            process is training it.
    """
    threads = choose_threads(config.training.threads, side_by_side)
    cache = get_cache_folder(config.cache)
    find_weights(config.architecture)  # a missing file shows before images are prepared
    with show_progress("preparing images") as tell:
        data = prepare_data(config, cache=cache, threads=threads, progress=tell)
    run_messages.show_data(data)
    config = resolve_auto(config, threads)
    extent = WHOLE_RUN if config.evaluation.test else RunOptions(splits=(TRAIN, VAL))
    same = fingerprint_run(config, data, extent.splits)
    with acquire_run_lock(
        cache,
        study=config.study,
        tracked=tracking.identify_study(config.tracking.uri, config.study),
        fingerprint=same,
        wait=run_messages.show_waiting if skip_finished else None,
    ) as claim:
        # Takes seconds, as TensorFlow's import does; both while images are being balanced.
        connecting = tracking.connect(config.tracking, config.study)
        if skip_finished and (there := connecting.result().find_finished({"fingerprint": same})):
            begun = (claim.read_interrupted_run() or (there.run_id,))[0]
            # Copies of a project that is gone have one claim: what another began stays.
            if begun == there.run_id or connecting.result().can_resume(begun):
                claim.forget()
            _show_skipped(config, arm, there)
            return there.run_id
        tracker = train_locked(config, arm, data, claim, connecting, threads=threads, extent=extent)
    run_messages.show_registered_model(tracker.registered)
    run_messages.show_run_location(config, tracker.run_id, kept=tracker.kept)
    return tracker.run_id


def _show_skipped(config: Config, arm: Arm, there: tracking.FinishedRun) -> None:
    """Say that the run is there, and what of its tags is not what is asked for now."""
    run_messages.show_skipped(there.run_id)
    name, reference = (there.tags.get(key, "") for key in ("arm", "reference"))
    if name != arm.name:
        show_note(f"It is an arm of another name there, with the same values: {name}")
    if config.reference and config.reference != reference:
        show_note(
            f"Its reference stays {reference or 'none'}. For another: "
            + format_lab_command(
                "compare", f"study={config.study}", f"reference={config.reference}"
            )
        )


def resolve_auto(config: Config, threads: int) -> Config:
    """The configuration with what ``auto`` comes to on this machine."""
    if isinstance(config.architecture, TrivialArchitecture):
        return config
    training = resolve_hardware_options(
        config.training, threads=threads, depthwise=config.architecture.depthwise
    )
    return replace(config, training=training)


def train_locked(
    config: Config,
    arm: Arm,
    data: PreparedData,
    claim: RunLock,
    connecting: Future[tracking.Tracker],
    *,
    threads: int,
    extent: RunOptions = WHOLE_RUN,
    on_results: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> tracking.Tracker:
    """Train a run that no other process is at, from where an earlier one ended.

    Args:
        config: ``resolve_auto``.
        arm: what a study calls it.
        data: the split dataset.
        claim: to the run.
        connecting: to the tracking server.
        threads: TensorFlow's.
        extent: how much is measured and kept.
        on_results: told the run's metrics when all of it is recorded, sent or not.

    Raises:
        UserError: it cannot be built as configured; no run is recorded.
        RunError: it diverged, ran out of memory or was not sent.
    """
    lines = extent.said is None
    with show_progress("balancing", line=lines) as tell:
        images = balance(
            config.balancing,
            data.training_split(),
            seed=config.seed,
            cache_dir=get_cache_folder(config.cache),
            workers=threads,
            progress=tell,
        )
    parts = _assemble(config, data, images, threads, extent)
    with show_progress("connecting to MLflow", line=lines):
        tracker = connecting.result()
    tags = build_run_tags(config, arm, data, threads=threads, extent=extent)
    params = tracking.flatten_params(config_to_dict(config))
    name = name_run(config, arm, extent)
    if isinstance(parts, TrivialClassifier):  # takes seconds: nothing to go on with
        with tracker.run(name, tags, params, line=lines):
            with show_progress("fitting and evaluating", line=lines):
                trained = fit_trivial_classifier(parts, data, images, splits=extent.splits)
            on_results(_record(config, data, images, trained, tracker=tracker, extent=extent))
        return tracker
    resume = config.training.resume
    now = describe_environment(threads, require_device_count(config.training))
    begun = find_interrupted_run(claim, tracker, now) if resume else None
    if begun is None:
        claim.forget()
    if extent.after is not None:
        done = extent.after.read_interrupted_run()
        if done is None or describe_changes(
            done[1], now
        ):  # its bits would not be those of this run
            extent = replace(extent, after=None)
    with tracker.run(name, tags, params, continuing=begun, line=lines) as run_id:
        if resume:
            record_begin(claim, run_id, now)
        trained = fit_with_checkpoints(
            config, data, images, parts, tracker=tracker, claim=claim, begun=begun, extent=extent
        )
        if trained.diverged:
            claim.forget()  # it would diverge again
        on_results(_record(config, data, images, trained, tracker=tracker, extent=extent))
    if not extent.keep_state:
        claim.forget()
    return tracker


def _record(
    config: Config,
    data: PreparedData,
    images: BalancedSet,
    trained: TrainingResult,
    *,
    tracker: tracking.Tracker,
    extent: RunOptions,
) -> dict[str, float]:
    """Record what came out, and return the metrics."""
    # Imported as late as can be: plotting and statistics would only delay the first step.
    with show_progress("loading statistics and drawing", line=extent.said is None):
        from melanoma_lab.runs.run_report import report_training

    return report_training(config, data, images, trained, tracker, extent=extent)


def _assemble(
    config: Config, data: PreparedData, images: BalancedSet, threads: int, extent: RunOptions
) -> TrainingSetup | TrivialClassifier:
    """What is going to be trained; a mistake shows here, before a run is recorded."""
    if isinstance(config.architecture, TrivialArchitecture):
        return build_trivial_classifier(config.architecture, data)
    devices = require_device_count(config.training)
    precision = config.training.precision
    start_backend(threads=threads, seed=config.seed, precision=precision, devices=devices)
    if extent.said is None:
        depthwise = config.architecture.depthwise
        run_messages.show_hardware(detect_hardware(), precision, devices, depthwise=depthwise)
    from melanoma_lab.training.feature_cache import is_cacheable, why_not_cacheable

    if extent.said is None and (reason := why_not_cacheable(config, images)):
        show_note(reason)
    what = "computing features" if is_cacheable(config, images) else "building the network"
    with show_progress(what, line=extent.said is None) as tell:
        from melanoma_lab.training.trainer import build_training_setup

        return build_training_setup(config, data, images, splits=extent.splits, progress=tell)
