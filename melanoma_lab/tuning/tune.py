"""Tune one arm: validate the space, search it, save and show the best configuration."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_lab.config.fingerprint import tuner_to_dict
from melanoma_lab.config.schema.data import KFold
from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.heavy_imports import load_tensorflow
from melanoma_lab.core.locks import hold_lock
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.core.version import git_commit
from melanoma_lab.models.weight_files import find_weights
from melanoma_lab.runs import run_messages
from melanoma_lab.tracking.parent_runs import (
    SWEEP_TAG,
    close_parent_run,
    log_search_results,
    open_parent_run,
)
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.tracking.upload import flatten_params
from melanoma_lab.tuning import search_messages
from melanoma_lab.tuning.distributed.transport import LOOPBACK, open_server
from melanoma_lab.tuning.distributed.worker_pool import (
    WorkerPool,
    assign_gpus,
    build_worker_command,
)
from melanoma_lab.tuning.plan import SearchPlan

if TYPE_CHECKING:  # they load TensorFlow or pandas
    from melanoma_lab.tuning.distributed.chief import Chief
    from melanoma_lab.tuning.plan import Proposal
    from melanoma_lab.tuning.search import TrialLog
    from melanoma_lab.tuning.sweep import TuningResult
    from melanoma_lab.tuning.trial_runner import TrialRunner


def tune_arm(plan: SearchPlan) -> TuningResult:
    """Search for better values of an arm's configuration.

    Raises:
        UserError: the data or the tracking server cannot be used.
        RunError: too many trials failed in a row, no trial completed, some were not sent, or
            another process is tuning the study.
    """
    config, role = plan.config, plan.role
    find_weights(config.architecture)  # fail early if a file of weights is missing
    if role is not None and not role.is_chief:
        raise UserError(
            f"KERASTUNER_TUNER_ID={role.name}: a worker trains for a chief, and finds nothing."
        )
    folder = Path("experiments") / config.study / "tuning"
    folder.mkdir(parents=True, exist_ok=True)

    def refuse(holder: str) -> None:
        raise RunError(
            f"{holder[0].upper()}{holder[1:]} is tuning study={config.study}. Let it finish, or "
            "choose another study=NAME."
        )

    # The server gives trials to workers; without any, this process trains them itself.
    alone = role is None and config.tuner.workers == 1
    serving = nullcontext() if alone else open_server(role)
    with hold_lock(folder / "lock", on_busy=refuse), serving as server:
        connecting = connect(config.tracking, config.study)
        load_tensorflow()
        from melanoma_lab.tuning.oracles import build_oracle
        from melanoma_lab.tuning.search import (
            Search,
            TooManyFailuresError,
            TrialLog,
            find_best_trial,
            resume_search,
        )
        from melanoma_lab.tuning.trial_runner import prepare_trials

        with show_progress("connecting to MLflow"):
            tracker = connecting.result()
        trials = prepare_trials(plan, tracker)
        run_messages.show_data(next(iter(trials.datasets.values())))
        search_folder = folder / f"{config.tuner.name}-{trials.sweep}"
        oracle = build_oracle(config.tuner, plan.searched)
        if note := resume_search(oracle, search_folder):
            show_note(note)
        trials.parent = _open_search_run(plan, trials)
        progress = search_messages.SearchProgress(config.tuner, plan.searched, oracle)
        done = len(oracle.end_order)
        search_messages.show_search(config, plan.arm, plan.searched, progress.total, done=done)
        trial_log = TrialLog(oracle, plan.searched, config.tuner, trials, on_end=progress.show_end)
        with _close_run_at_end(trials, oracle):
            try:
                if server is None:
                    Search(trial_log, config.tuner.objective, folder=search_folder).search()
                else:
                    _build_chief(plan, trial_log, server, search_folder, progress.total).search()
            except TooManyFailuresError:
                if find_best_trial(oracle) is not None:  # report what was found before
                    _conclude(plan, trial_log)
                raise
            return _conclude(plan, trial_log)


def _build_chief(
    plan: SearchPlan, trial_log: TrialLog, server: tuple[Any, int], folder: Path, total: int
) -> Chief:
    """Build the chief of a search by several processes, with its workers on this machine."""
    from melanoma_lab.tuning.distributed.chief import Chief

    tuner, role = plan.config.tuner, plan.role
    workers = tuner.workers if role is None or tuner.workers > 1 else 0
    gpus = assign_gpus(plan.config.training.devices, os.environ)
    words = build_worker_command(plan.command) if workers else []
    host = LOOPBACK if role is None else role.host
    pool = WorkerPool(workers, words, folder, host=host, port=server[1], gpus=gpus)
    search_messages.show_chief(workers, folder, None if role is None else role.address)
    return Chief(
        trial_log,
        server[0],
        pool,
        parent=trial_log.trials.parent,
        worker_timeout=tuner.worker_timeout,
        total=total,
    )


@contextmanager
def _close_run_at_end(trials: TrialRunner, oracle: Any) -> Iterator[None]:
    """Close the search's own run when the block ends, with the status of the search."""
    client, run_id = trials.tracker.client, trials.parent
    try:
        yield
    except KeyboardInterrupt:
        close_parent_run(client, run_id, "KILLED", why="interrupted")
        search_messages.show_interrupted(len(oracle.end_order))
        raise
    except BaseException as error:
        close_parent_run(client, run_id, "FAILED", why=f"{type(error).__name__}: {error}")
        raise
    close_parent_run(client, run_id, "FINISHED")


def _open_search_run(plan: SearchPlan, trials: TrialRunner) -> str:
    """Open the search's own MLflow run, the parent of its trials, and return its id."""
    config, tracker = plan.config, trials.tracker
    return open_parent_run(
        tracker.client,
        tracker.experiment_id,
        f"tune {plan.arm.name}",
        {
            SWEEP_TAG: trials.sweep,
            "study": config.study,
            "tuner": config.tuner.name,
            "objective": config.tuner.objective,
            "git_commit": git_commit(),
        },
        flatten_params({"tuner": tuner_to_dict(config)}),
    )


def _conclude(plan: SearchPlan, trial_log: TrialLog) -> TuningResult:
    """Save and show the result of a search.

    Raises:
        RunError: no trial completed, or some runs are not sent yet.
    """
    from melanoma_lab.tuning.best_trial import build_next_commands, report_best_trial, write_preset
    from melanoma_lab.tuning.report import write_search_report
    from melanoma_lab.tuning.search import find_best_trial
    from melanoma_lab.tuning.sweep import TuningResult
    from melanoma_lab.tuning.sweep_builder import build_sweep

    trials = trial_log.trials
    config, command, client = plan.config, plan.command, trials.tracker.client
    best = find_best_trial(trial_log.oracle)
    if best is None:
        raise RunError("No trial of the search completed.")
    proposal = trial_log.read_proposal(best)
    values = dict(proposal.values)
    with show_progress("drawing the figures of the best trial"):
        report_best_trial(trials, proposal)
    commands = build_next_commands(command, values, config.study)
    notes = _list_notes(plan, trials, proposal, best.score)
    preset = write_preset(command, values, study=config.study, notes=notes)
    sweep = build_sweep(plan, trial_log, commands)
    with show_progress("writing the report"):
        report = write_search_report(sweep, Path("experiments") / config.study / "tuned")
    files = [report, *report.parent.glob("*.md"), *report.parent.glob("*.csv"), preset]
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "manifest.csv"
        first = trials.specify_repetition(proposal, trials.repetitions[0])
        first.data.manifest.to_csv(manifest, index=False)
        log_search_results(
            client, trials.parent, [*files, manifest], "\n".join(f"- {n}" for n in notes)
        )
    client.log_metric(trials.parent, "best_score", best.score)
    client.set_tag(trials.parent, "best_trial", best.trial_id)
    trials.delete_checkpoints(proposal)
    tuned = TuningResult(
        config.study, best.score, values, preset, report, tuple(commands), trials.parent, sweep
    )
    search_messages.show_tuning_result(tuned, sweep.untuned, notes)
    if trial_log.unsent:
        raise RunError(
            f"The runs of {trial_log.unsent} trials have not been sent to MLflow yet: "
            f"{format_lab_command('sync')}"
        )
    return tuned


def _list_notes(
    plan: SearchPlan, trials: TrialRunner, proposal: Proposal, score: float
) -> list[str]:
    """Return sentences about the best trial, for the preset's comment and the console."""
    tuner = plan.config.tuner
    seeds = len(trials.repetitions)
    found = [
        f"Trial {proposal.trial} of tuner={tuner.name}: {tuner.objective} {score:.4f}"
        + (f", the mean of {seeds}" if seeds > 1 else "")
        + ". The best of many validation scores is optimistic; the test split was not used."
    ]
    if proposal.epochs and proposal.epochs[1] != plan.config.training.epochs:
        found.append(
            f"It trained {proposal.epochs[1]} epochs; retraining takes training.epochs="
            f"{plan.config.training.epochs}, like the arm it is compared with."
        )
    if isinstance(plan.config.split, KFold):
        found.append(
            "Validation images of this search are test images of other folds: compare on another "
            "split.seed."
        )
    return found
