"""``train``: one training, from the checked configuration to the finished run."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_loading
from melanoma_lab.runs.run_headline import show_headline


def run(config: Config, arm: Arm) -> None:
    """Train, evaluate and record one arm; in a multirun, skip it if it has finished before."""
    from melanoma_lab.cli.multirun import in_multirun
    from melanoma_lab.launching import count_parallel_jobs

    train_arm(config, arm, skip_finished=in_multirun(), parallel_jobs=count_parallel_jobs())


def train_arm(
    config: Config, arm: Arm, *, skip_finished: bool = False, parallel_jobs: int = 1
) -> str:
    """Train, evaluate and record one arm; return the id of its MLflow run.

    Args:
        skip_finished: train nothing if the study has a finished run of the same fingerprint.
        parallel_jobs: runs that are trained at once on this machine and share its threads, unless
            ``training.threads`` says how many this one takes.

    Raises:
        UserError: The configuration or the data cannot be used; no run is recorded.
        RunError: The run diverged or ran out of memory, and is recorded as FAILED; or another
            process is training it.
    """
    show_headline(config, arm)
    with show_loading():
        from melanoma_lab.core.files import get_cache_folder
        from melanoma_lab.models.weight_files import find_weights
        from melanoma_lab.runs import run_messages, steps
        from melanoma_lab.runs.run_lock import acquire_run_lock
        from melanoma_lab.runs.run_spec import RunSpec, choose_options
        from melanoma_lab.tracking.locations import identify_study
        from melanoma_lab.tracking.tracker import connect
        from melanoma_lab.training.hardware import choose_threads

    threads = choose_threads(config.training.threads, parallel_jobs)
    find_weights(config.architecture)  # a missing file shows before images are prepared
    data = steps.prepare_dataset(config, threads)
    run_messages.show_data(data)
    config = steps.resolve_auto(config, threads)
    spec = RunSpec(config, arm, data, threads, choose_options(config))
    with acquire_run_lock(
        get_cache_folder(config.cache),
        study=config.study,
        tracked=identify_study(config.tracking.uri, config.study),
        fingerprint=spec.fingerprint,
        wait=run_messages.show_waiting if skip_finished else None,
    ) as lock:
        # Takes seconds, as TensorFlow's import does; both while images are being balanced.
        connecting = connect(config.tracking, config.study)
        if skip_finished and (finished := steps.find_finished_run(spec, lock, connecting)):
            return finished.run_id
        images = steps.balance_images(spec)
        setup = steps.build_setup(spec, images)  # mistakes show here, before a run is recorded
        with steps.start_run(spec, lock, connecting) as active:
            result = steps.fit(active, setup, images)
            steps.report(active, images, result)
    tracker = active.tracker
    run_messages.show_registered_model(tracker.registered)
    run_messages.show_run_location(config, tracker.run_id, kept=tracker.kept)
    return tracker.run_id
