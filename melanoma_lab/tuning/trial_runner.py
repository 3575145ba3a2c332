"""Train the trials of a search: one run each, or one for each seed and fold, without test."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import config_to_dict, tuner_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.files import get_cache_folder, hash_text
from melanoma_lab.data.split import TRAIN, VAL
from melanoma_lab.runs import run_messages, steps
from melanoma_lab.runs.run_lock import RunLock, acquire_run_lock
from melanoma_lab.runs.run_spec import RunOptions, RunSpec, fingerprint_run
from melanoma_lab.tracking.locations import identify_study
from melanoma_lab.tracking.parent_runs import (
    PARENT_TAG,
    REPETITION_TAG,
    SCORE_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    close_parent_run,
    open_parent_run,
)
from melanoma_lab.tracking.upload import flatten_params
from melanoma_lab.training.hardware import choose_threads
from melanoma_lab.tuning.plan import Proposal, Repetition, SearchPlan, TrialScore, list_repetitions
from melanoma_lab.tuning.space_validation import TuneCommand

if TYPE_CHECKING:
    from melanoma_lab.input_pipeline.prepare import PreparedData
    from melanoma_lab.tracking.tracker import Tracker

#: How much of a trial is evaluated and recorded; its last checkpoint stays for a trial that is
#: promoted from it.
TRIAL_OPTIONS = RunOptions(
    splits=(TRAIN, VAL), save_figures=False, keep_checkpoints=True, progress_prefix=""
)
#: Keys of the group ``tuner`` that do not change the identity of a search.
BUDGET_KEYS = (
    *("max_trials", "iterations", "max_failures"),
    *("workers", "chief_timeout", "worker_timeout"),
)


@dataclass
class TrialRunner:
    """Trains the trials of one search.

    Attributes:
        datasets: datasets that were prepared already, by their configuration as JSON.
        run_locks: run locks of the repetitions that this process knows, by trial id and repetition.
    """

    command: TuneCommand
    arm: Arm
    repetitions: Sequence[Repetition]
    objective: str
    sweep: str
    parent: str
    tracker: Tracker
    cache: Path
    threads: int
    datasets: dict[str, PreparedData] = field(default_factory=dict)
    run_locks: dict[tuple[str, Repetition], RunLock] = field(default_factory=dict)

    def run(self, proposal: Proposal, progress_prefix: str) -> TrialScore:
        """Train, evaluate and record a trial; finished runs are not repeated.

        Raises:
            UserError: a value is invalid.
            RunError: the trial failed; it is recorded as failed, with the reason.
        """
        client = self.tracker.client
        if len(self.repetitions) == 1 or client is None:  # offline, no parent run can be opened
            done = [
                self._train(proposal, repetition, self.parent, progress_prefix)
                for repetition in self.repetitions
            ]
            return self._average(done)
        tags = {SWEEP_TAG: self.sweep, TRIAL_TAG: proposal.trial, PARENT_TAG: self.parent}
        config = self.command.configure(proposal.overrides())
        params = flatten_params(config_to_dict(config))
        for key in Repetition(0, 0).overrides():
            params.pop(key, None)
        run_id = open_parent_run(
            client, self.tracker.experiment_id, f"trial {proposal.trial}", tags, params
        )
        try:
            done = [
                self._train(
                    proposal, repetition, run_id, f"{progress_prefix} ({n}/{len(self.repetitions)})"
                )
                for n, repetition in enumerate(self.repetitions, 1)
            ]
        except KeyboardInterrupt:
            close_parent_run(client, run_id, "KILLED", why="interrupted")
            raise
        except Exception as error:
            close_parent_run(client, run_id, "FAILED", why=f"{type(error).__name__}: {error}")
            raise
        score = self._average(done)
        close_parent_run(
            client,
            run_id,
            "FINISHED",
            tags={SCORE_TAG: repr(score.score)},
            metrics=score.metrics,
        )
        return score

    def _average(self, done: Sequence[tuple[Mapping[str, float], bool]]) -> TrialScore:
        shared = set.intersection(*(set(metrics) for metrics, _ in done))
        return TrialScore(
            score=fmean(metrics[self.objective] for metrics, _ in done),
            metrics={key: fmean(m[key] for m, _ in done) for key in sorted(shared)},
            unsent=any(unsent for _, unsent in done),
        )

    def load_dataset(self, config: Config) -> PreparedData:
        """Load a trial's dataset; each dataset is prepared once per process."""
        plain = config_to_dict(config)
        key = json.dumps(
            [plain[group] for group in ("dataset", "split", "metadata")], sort_keys=True
        )
        if key not in self.datasets:
            self.datasets[key] = steps.prepare_dataset(config, self.threads)
        return self.datasets[key]

    def specify_repetition(
        self, proposal: Proposal, repetition: Repetition, options: RunOptions = TRIAL_OPTIONS
    ) -> RunSpec:
        """Return the run of one seed and fold of a trial."""
        config = self.command.configure({**proposal.overrides(), **repetition.overrides()})
        config = steps.resolve_auto(config, self.threads)
        return RunSpec(config, self.arm, self.load_dataset(config), self.threads, options)

    def get_run_lock(self, proposal: Proposal, repetition: Repetition) -> RunLock:
        """Return the run lock of one run of a trial, without acquiring it.

        The lock gives the folder of the run's checkpoints. The caller must hold the search's lock.
        """
        if (proposal.trial, repetition) not in self.run_locks:
            spec = self.specify_repetition(proposal, repetition)
            self.run_locks[proposal.trial, repetition] = RunLock.for_run(
                self.cache, **self._lock_key(spec)
            )
        return self.run_locks[proposal.trial, repetition]

    def _lock_key(self, spec: RunSpec) -> dict[str, str]:
        """Return what the run's lock is named by; a run outside the search has another lock."""
        config = spec.config
        return {
            "study": config.study,
            "tracked": identify_study(config.tracking.uri, config.study),
            "fingerprint": f"{self.sweep}/{spec.fingerprint}",
        }

    def delete_checkpoints(self, proposal: Proposal) -> None:
        """Delete the checkpoints of a trial."""
        for repetition in self.repetitions:
            self.get_run_lock(proposal, repetition).delete_checkpoints()

    def _train(
        self, proposal: Proposal, repetition: Repetition, parent: str, progress_prefix: str
    ) -> tuple[Mapping[str, float], bool]:
        """Train one run of a trial; return its metrics, and whether it is on disk, not sent."""
        several = len(self.repetitions) > 1
        tags = {SWEEP_TAG: self.sweep, TRIAL_TAG: proposal.trial}
        options = replace(
            TRIAL_OPTIONS,
            tags={
                **tags,
                PARENT_TAG: parent,
                **({REPETITION_TAG: str(repetition)} if several else {}),
            },
            continue_from=self.get_run_lock(proposal.continues, repetition)
            if proposal.continues
            else None,
            progress_prefix=progress_prefix,
        )
        spec = self.specify_repetition(proposal, repetition, options)
        ready: Future[Tracker] = Future()
        ready.set_result(self.tracker)
        results: Mapping[str, float] = {}
        # A process of this search that was killed may still be about to end and hold the lock.
        with acquire_run_lock(
            self.cache, **self._lock_key(spec), wait=run_messages.show_waiting
        ) as lock:
            self.run_locks[proposal.trial, repetition] = lock
            if finished := self.tracker.find_finished({**tags, "fingerprint": spec.fingerprint}):
                return dict(finished.metrics), False
            run_id_before = self.tracker.run_id
            try:
                images = steps.balance_images(spec)
                setup = steps.build_setup(spec, images)
                with steps.start_run(spec, lock, ready) as active:
                    result = steps.fit(active, setup, images)
                    results = steps.report(active, images, result)
                    self._record_score(results[self.objective])
            except Exception as error:
                if isinstance(error, RunError) and results and self.tracker.kept is not None:
                    return results, True  # trained and measured, only not sent
                if self.tracker.run_id == run_id_before:  # it failed before a run was recorded
                    self._record_failure(spec, error)
                raise
        return results, False

    def _record_score(self, score: float) -> None:
        """Record the trial's objective; NaN makes the trial fail."""
        if math.isnan(score):
            raise RunError(f"{self.objective} is undefined: NaN.")
        self.tracker.set_tags({SCORE_TAG: repr(score)})

    def _record_failure(self, spec: RunSpec, error: Exception) -> None:
        """Record a run that failed before it was recorded."""
        try:
            with self.tracker.run(spec.name, spec.build_tags(), spec.build_params()):
                raise error
        except type(error):
            pass


def prepare_trials(plan: SearchPlan, tracker: Tracker) -> TrialRunner:
    """Prepare the images and build the runner of a search's trials.

    Returns:
        The runner; its ``parent``, the search's own run, is still empty.
    """
    config = plan.config
    shared_by = config.tuner.workers if plan.role is None or plan.role.shares else 1
    trials = TrialRunner(
        command=plan.command,
        arm=plan.arm,
        repetitions=list_repetitions(config),
        objective=config.tuner.objective,
        sweep="",
        parent="",
        tracker=tracker,
        cache=get_cache_folder(config.cache),
        threads=choose_threads(config.training.threads, shared_by),
    )
    trials.sweep = _fingerprint_search(plan, trials)
    return trials


def _fingerprint_search(plan: SearchPlan, trials: TrialRunner) -> str:
    """Hash the identity of a search: the space, the algorithm, the base configuration, the data."""
    algorithm = {
        k: v for k, v in tuner_to_dict(plan.config).items() if k not in {*BUDGET_KEYS, "space"}
    }
    bases = []
    for repetition in trials.repetitions:
        base = plan.command.configure(repetition.overrides())
        data = trials.load_dataset(base)
        bases.append(fingerprint_run(base, data))
    space: list[Any] = [asdict(entry) for entry in plan.searched]
    text = json.dumps([algorithm, space, bases], sort_keys=True)
    return hash_text(text, 16)
