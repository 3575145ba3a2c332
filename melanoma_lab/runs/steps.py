"""The steps of a run, in the order in which ``commands.train`` and trials of a search take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.architecture import TrivialArchitecture
from melanoma_lab.core.console import FitProgress, show_note, show_progress
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.prepare import PreparedData, prepare_data
from melanoma_lab.models.trivial_classifiers import TrivialClassifier, build_trivial_classifier
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_lock import RunLock
from melanoma_lab.runs.run_spec import RunSpec
from melanoma_lab.tracking.tracker import FinishedRun, Tracker
from melanoma_lab.training.checkpoint import CheckpointManager
from melanoma_lab.training.environment import describe_changes, describe_environment
from melanoma_lab.training.hardware import (
    detect_hardware,
    require_device_count,
    resolve_hardware_options,
    start_backend,
)
from melanoma_lab.training.training_result import TrainingResult, fit_trivial_classifier

if TYPE_CHECKING:  # this import would load TensorFlow
    from melanoma_lab.training.trainer import TrainingSetup


@dataclass(frozen=True, eq=False)
class ActiveRun:
    """A run that is being recorded.

    Attributes:
        resumed: id of the interrupted MLflow run that is continued; None: the run is new.
        continue_from: the lock of a run whose last checkpoint this one starts from, if any.
    """

    spec: RunSpec
    tracker: Tracker
    lock: RunLock
    resumed: str | None = None
    continue_from: RunLock | None = None


def prepare_dataset(config: Config, threads: int) -> PreparedData:
    """Read, audit, label, group, split and decode the images of a run.

    Raises:
        UserError: the data cannot be used as configured.
    """
    with show_progress("preparing images") as tell:
        return prepare_data(
            config, cache=get_cache_folder(config.cache), threads=threads, progress=tell
        )


def resolve_auto(config: Config, threads: int) -> Config:
    """Replace ``auto`` in the configuration of a network's training by this machine's values."""
    if isinstance(config.architecture, TrivialArchitecture):
        return config
    training = resolve_hardware_options(
        config.training, threads=threads, depthwise=config.architecture.depthwise
    )
    return replace(config, training=training)


def find_finished_run(
    spec: RunSpec, lock: RunLock, connecting: Future[Tracker]
) -> FinishedRun | None:
    """Return the study's finished run with the same fingerprint and print it, or return None.

    Checkpoints of an interrupted repetition of the run are deleted.
    """
    tracker = connecting.result()
    finished = tracker.find_finished({"fingerprint": spec.fingerprint})
    if finished is None:
        return None
    interrupted = (lock.read_interrupted_run() or (finished.run_id,))[0]
    # Copies of a deleted project share one lock: keep the checkpoints of a run of another copy.
    if interrupted == finished.run_id or tracker.can_resume(interrupted):
        lock.delete_checkpoints()
    _show_finished(spec, finished)
    return finished


def _show_finished(spec: RunSpec, finished: FinishedRun) -> None:
    """Print that the run has finished before, and if its arm or reference differs."""
    run_messages.show_skipped(finished.run_id)
    name, reference = (finished.tags.get(key, "") for key in ("arm", "reference"))
    if name != spec.arm.name:
        show_note(f"In the study this arm has another name, with the same values: {name}")
    wanted = spec.config.reference
    if wanted and wanted != reference:
        show_note(
            f"Its recorded reference stays {reference or 'none'}. To compare it with another one: "
            + format_lab_command("compare", f"study={spec.config.study}", f"reference={wanted}")
        )


def balance_images(spec: RunSpec) -> BalancedSet:
    """Balance the classes of the training split as configured."""
    with show_progress("balancing", line=spec.options.prints_lines) as tell:
        return balance(
            spec.config.balancing,
            spec.data.training_split(),
            seed=spec.config.seed,
            cache_dir=get_cache_folder(spec.config.cache),
            workers=spec.threads,
            progress=tell,
        )


def build_setup(spec: RunSpec, images: BalancedSet) -> TrainingSetup | TrivialClassifier:
    """Build the network with its optimizer, or the trivial classifier.

    Raises:
        UserError: it cannot be built as configured; nothing has been recorded yet.
    """
    config, lines = spec.config, spec.options.prints_lines
    if isinstance(config.architecture, TrivialArchitecture):
        return build_trivial_classifier(config.architecture, spec.data)
    devices = require_device_count(config.training)
    precision = config.training.precision
    start_backend(threads=spec.threads, seed=config.seed, precision=precision, devices=devices)
    # These modules import TensorFlow.
    from melanoma_lab.training.feature_cache import is_cacheable, why_not_cacheable

    if lines:
        depthwise = config.architecture.depthwise
        run_messages.show_hardware(detect_hardware(), precision, devices, depthwise=depthwise)
        if reason := why_not_cacheable(config, images):
            show_note(reason)
    what = "computing features" if is_cacheable(config, images) else "building the network"
    with show_progress(what, line=lines) as tell:
        from melanoma_lab.training.trainer import build_training_setup

        return build_training_setup(
            config, spec.data, images, splits=spec.options.splits, progress=tell
        )


@contextmanager
def start_run(spec: RunSpec, lock: RunLock, connecting: Future[Tracker]) -> Iterator[ActiveRun]:
    """Record a run in the block: a new one, or the interrupted one that is resumed.

    Raises:
        UserError: the tracking server cannot be used; nothing is recorded.
        RunError: the run was not sent; it is stored on disk.
    """
    options, training = spec.options, spec.config.training
    lines = options.prints_lines
    with show_progress("connecting to MLflow", line=lines):
        tracker = connecting.result()
    name, tags, params = spec.name, spec.build_tags(), spec.build_params()
    if spec.is_trivial:  # it is fitted in seconds: there is nothing to resume
        with tracker.run(name, tags, params, line=lines):
            yield ActiveRun(spec, tracker, lock)
        return
    environment = describe_environment(spec.threads, require_device_count(training))
    resumed = find_interrupted_run(lock, tracker, environment) if training.resume else None
    if resumed is None:
        lock.delete_checkpoints()
    continue_from = options.continue_from
    if continue_from is not None:
        before = continue_from.read_interrupted_run()
        if before is None or describe_changes(before[1], environment):
            continue_from = None  # in another environment the results would differ in their bits
    with tracker.run(name, tags, params, continuing=resumed, line=lines) as run_id:
        if training.resume:
            record_begin(lock, run_id, environment)
        yield ActiveRun(spec, tracker, lock, resumed, continue_from)
    if not options.keep_checkpoints:
        lock.delete_checkpoints()


def find_interrupted_run(
    lock: RunLock, tracker: Tracker, environment: Mapping[str, str]
) -> str | None:
    """Return the id of the MLflow run to resume; None if there is none.

    A run of another environment is not resumed: its results could differ in their bits.
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


def fit(
    active: ActiveRun, setup: TrainingSetup | TrivialClassifier, images: BalancedSet
) -> TrainingResult:
    """Fit the network or the trivial classifier, and predict the images of the run's splits."""
    spec = active.spec
    if isinstance(setup, TrivialClassifier):
        with show_progress("fitting and evaluating", line=spec.options.prints_lines):
            return fit_trivial_classifier(setup, spec.data, images, splits=spec.options.splits)
    result = fit_with_checkpoints(active, setup, images)
    if result.diverged:
        active.lock.delete_checkpoints()  # resumed, it would diverge again
    return result


def fit_with_checkpoints(
    active: ActiveRun, setup: TrainingSetup, images: BalancedSet
) -> TrainingResult:
    """Fit a network, log every epoch to MLflow and the terminal, and write checkpoints."""
    from melanoma_lab.training.fit import read_history
    from melanoma_lab.training.trainer import count_epoch_steps, train_network

    def record(epoch: int, figures: Mapping[str, float]) -> None:
        active.tracker.log_metrics({f"epoch/{k}": v for k, v in figures.items()}, step=epoch)

    spec = active.spec
    training, options = spec.config.training, spec.options
    manager = CheckpointManager(active.lock.folder, show_note, final=options.keep_checkpoints)
    with manager if training.resume else nullcontext() as checkpoints:
        start = checkpoints.load_newest() if checkpoints and active.resumed else None
        if start is None and active.continue_from is not None:
            start = CheckpointManager(active.continue_from.folder, show_note).load_newest()
        before = read_history(start) if start else []
        if active.resumed:
            run_messages.show_resume(active.resumed, len(before))
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


def report(active: ActiveRun, images: BalancedSet, result: TrainingResult) -> Mapping[str, float]:
    """Evaluate a training result, log its report and return the metrics.

    Raises:
        RunError: the training diverged; metrics that could be computed are recorded.
    """
    spec = active.spec
    # Imported late, because the modules of plots and statistics would delay the first step.
    with show_progress("loading statistics and drawing", line=spec.options.prints_lines):
        from melanoma_lab.runs.run_report import report_training

    return report_training(spec, images, result, active.tracker)
