"""Tune one arm: check the space, search it, keep and show the best."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from melanoma_lab import summary, tracking
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import fingerprint, tuner_of
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.split import KFold
from melanoma_lab.config.schema.tuner import Hyperband
from melanoma_lab.data.cache import cache_folder
from melanoma_lab.errors import RunError, UserError
from melanoma_lab.evaluation.names import OF_MELANOMA
from melanoma_lab.tracking.sweep_run import SWEEP_TAG, close_run, open_run
from melanoma_lab.training.backend import available_threads, load_tensorflow
from melanoma_lab.tuning import telling
from melanoma_lab.tuning.checking import Command, checked
from melanoma_lab.tuning.default_space import default_space
from melanoma_lab.tuning.space import Searched, declared

if TYPE_CHECKING:  # their modules load TensorFlow
    from melanoma_lab.tuning.trial import Trials

#: Keys of the group ``tuner`` that may change without making it another search.
BUDGET = ("max_trials", "iterations", "max_failures")


@dataclass(frozen=True)
class Plan:
    """A search before it begins.

    Attributes:
        config: that it starts from.
        arm: what a study calls that.
        command: what its trials share.
        searched: the checked space.
    """

    config: Config
    arm: Arm
    command: Command
    searched: Sequence[Searched]


def tune_typed(config: Config, arm: Arm) -> None:
    """Tune what was typed on the command line."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    own = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    command = Command.typed(list(hydra.overrides.task), own[0] if own else None)
    tune_arm(plan(config, arm, command))


def plan(config: Config, arm: Arm, command: Command) -> Plan:
    """Check all that can be checked before anything is loaded.

    Args:
        config: the checked configuration.
        arm: what a study calls it.
        command: what the trials share.

    Raises:
        UserError: the space, the objective or the budget cannot be.
    """
    tuner = config.tuner
    metric = tuner.objective.removeprefix("val/")
    if metric in OF_MELANOMA and config.dataset.melanoma is None:
        raise UserError(
            f"tuner.objective={tuner.objective}: dataset={config.dataset.name} names no melanoma "
            "class; add dataset.melanoma=NAME."
        )
    if isinstance(config.split, KFold):
        for fold in tuner.folds or []:
            if not 0 <= fold < config.split.k:
                raise UserError(f"tuner.folds: no fold {fold}; expected 0 to {config.split.k - 1}.")
    elif tuner.folds is not None:
        raise UserError(f"tuner.folds: split={config.split.name} has none; expected split=kfold.")
    if config.tracking.offline:
        raise UserError(
            "tracking.offline=true: a search puts its trials under a run of its own; record them "
            "in a file: tracking.uri=sqlite:///mlflow.db"
        )
    if not config.training.resume:
        raise UserError("training.resume=false: a search goes on from what its trials keep.")
    space = default_space(config) if tuner.space is None else tuner.space
    if isinstance(tuner, Hyperband):
        if "training.epochs" in space:
            raise UserError(
                "tuner.space: training.epochs: tuner=hyperband decides it, up to tuner.max_epochs."
            )
        command = Command(
            (*command.overrides, f"training.epochs={tuner.max_epochs}"), command.config_dir
        )
    return Plan(config, arm, command, checked(declared(space), command))


def tune_arm(plan: Plan) -> None:
    """Search better values for an arm.

    Raises:
        UserError: the data or the tracking server cannot be used.
        RunError: too many trials failed in a row, none completed, or another process is at it.
    """
    config = plan.config
    with _only_one(Path("experiments") / config.study / "tuning", config.study) as folder:
        threads = config.training.threads or available_threads()
        cache = cache_folder(config.cache)
        connecting = tracking.connect(config.tracking, config.study)
        load_tensorflow()
        from melanoma_lab.tuning.algorithms import build_oracle
        from melanoma_lab.tuning.search import Search, best_trial, go_on
        from melanoma_lab.tuning.trial import Trials, parts_of

        trials = Trials(
            command=plan.command,
            arm=plan.arm,
            parts=parts_of(config),
            objective=config.tuner.objective,
            sweep="",
            parent="",
            tracker=connecting.result(),
            cache=cache,
            threads=threads,
        )
        trials.sweep = _fingerprint(plan, trials)
        folder /= f"{config.tuner.name}-{trials.sweep}"
        oracle = build_oracle(config.tuner, plan.searched)
        if note := go_on(oracle, folder):
            summary.show_note(note)
        tracker = trials.tracker
        trials.parent = open_run(
            tracker.client,
            tracker.experiment_id,
            f"tune {plan.arm.name}",
            {
                SWEEP_TAG: trials.sweep,
                "study": config.study,
                "tuner": config.tuner.name,
                "objective": config.tuner.objective,
            },
            tracking.flatten({"tuner": tuner_of(config)}),
        )
        progress = telling.Progress(config.tuner, plan.searched, oracle)
        telling.show_search(
            config, plan.arm, plan.searched, progress.total, done=len(oracle.end_order)
        )
        search = Search(
            oracle, plan.searched, config.tuner, trials, folder=folder, on_end=progress.ended
        )
        try:
            search.search()
        except KeyboardInterrupt:
            close_run(tracker.client, trials.parent, "KILLED", why="interrupted")
            telling.show_interrupted(len(oracle.end_order))
            raise
        except BaseException as error:
            close_run(tracker.client, trials.parent, "FAILED", why=str(error))
            raise
        best = best_trial(oracle)
        if best is None:
            close_run(tracker.client, trials.parent, "FAILED", why="no trial completed")
            raise RunError("No trial of the search completed.")
        close_run(tracker.client, trials.parent, "FINISHED", metrics={"best_score": best.score})


@contextmanager
def _only_one(folder: Path, study: str) -> Iterator[Path]:
    """Be the only process that tunes a study, while the block lasts.

    Raises:
        RunError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "Another process"
        raise RunError(
            f"{who} is tuning study={study}. Let it finish, or choose another study=NAME."
        ) from None
    try:
        holder.write_text(f"Process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield folder
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _fingerprint(plan: Plan, trials: Trials) -> str:
    """What makes two searches the same: the space, the algorithm, the base, the data."""
    algorithm = {k: v for k, v in tuner_of(plan.config).items() if k not in {*BUDGET, "space"}}
    bases = []
    for part in trials.parts:
        base, _ = plan.command.configure(part.overrides())
        data = trials.data_of(base)
        bases.append(fingerprint(base, dataset_digest=data.digest, split_hash=data.split_hash))
    space: list[Any] = [asdict(entry) for entry in plan.searched]
    text = json.dumps([algorithm, space, bases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
