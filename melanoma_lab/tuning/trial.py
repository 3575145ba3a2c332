"""Train the trials of a search: one run each, or one for each seed and fold, without test."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.split import FoldSplit
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.split import TRAIN, VAL
from melanoma_lab.runs import run_messages, steps
from melanoma_lab.runs.run_lock import RunLock, acquire_run_lock
from melanoma_lab.runs.run_spec import RunOptions, RunSpec
from melanoma_lab.tracking.provenance import flatten_params
from melanoma_lab.tracking.relocation import identify_study
from melanoma_lab.tracking.study_run import PARENT_TAG
from melanoma_lab.tracking.sweep_run import (
    REPETITION_TAG,
    SCORE_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    close_parent_run,
    open_parent_run,
)
from melanoma_lab.tuning.search_space import Values
from melanoma_lab.tuning.space_validation import TuneCommand

if TYPE_CHECKING:
    from melanoma_lab.input_pipeline.prepare import PreparedData
    from melanoma_lab.tracking.tracker import Tracker

#: The splits on which a trial is evaluated.
TRIAL_SPLITS = (TRAIN, VAL)
#: How much of a trial is recorded; its last checkpoint stays for a trial that is promoted from it.
TRIAL_OPTIONS = RunOptions(
    splits=TRIAL_SPLITS, save_figures=False, keep_checkpoints=True, progress_prefix=""
)


@dataclass(frozen=True)
class Proposal:
    """The values and epochs that the oracle proposes for a trial.

    Attributes:
        trial: the trial's id.
        values: the values of the searched keys, as in Hydra overrides.
        epochs: (epochs of the full budget, epochs after which this trial ends) if the algorithm
            decides about them, else None.
        continues: the proposal of the trial that this one continues, if it was promoted, else None.
    """

    trial: str
    values: Values
    epochs: tuple[int, int] | None = None
    continues: Proposal | None = None

    def overrides(self) -> dict[str, str]:
        """Return the overrides in which the trial differs from the search: values and epochs."""
        if self.epochs is None:
            return dict(self.values)
        total, last = self.epochs
        budget = {"training.epochs": str(total)}
        if last < total:
            budget["training.stop_after"] = str(last)
        return {**self.values, **budget}


@dataclass(frozen=True)
class Repetition:
    """A seed and a fold with which a trial is trained; the fold is None if the split has none."""

    seed: int
    fold: int | None

    def __str__(self) -> str:
        return f"seed {self.seed}" + ("" if self.fold is None else f" fold {self.fold}")

    def overrides(self) -> dict[str, str]:
        """Return the seed and the fold as overrides."""
        fold = {} if self.fold is None else {"split.fold": str(self.fold)}
        return {"seed": str(self.seed), **fold}


@dataclass(frozen=True)
class TrialScore:
    """The result of a trial.

    Attributes:
        score: the mean of the scores.
        metrics: the metrics that all repetitions have; means over the repetitions.
        unsent: whether some runs are saved on disk and not yet sent to the tracking server.
    """

    score: float
    metrics: Mapping[str, float]
    unsent: bool = False


def list_repetitions(config: Config) -> list[Repetition]:
    """List the seeds and folds with which every trial of a search is trained."""
    folds: Sequence[int | None] = [None]
    if isinstance(config.split, FoldSplit):
        folds = config.tuner.folds or [config.split.fold]
    return [
        Repetition(seed, fold)
        for seed, fold in itertools.product(config.tuner.seeds or [config.seed], folds)
    ]


@dataclass
class TrialRunner:
    """Trains the trials of one search.

    Attributes:
        command: the overrides that all trials share.
        arm: the arm that is tuned.
        repetitions: the repetitions of each trial: its seeds and folds.
        objective: the name of the metric to optimise.
        sweep: the search's fingerprint.
        parent: the MLflow id of the search's own run.
        tracker: the tracker that records the trials.
        cache: the cache folder.
        threads: the number of threads that TensorFlow uses.
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

        Args:
            proposal: the trial's values and epochs.
            progress_prefix: the text before the progress bar.

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
        config, _ = self.command.configure(proposal.overrides())
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
        config, _ = self.command.configure({**proposal.overrides(), **repetition.overrides()})
        config = steps.resolve_auto(config, self.threads)
        return RunSpec(config, self.arm, self.load_dataset(config), self.threads, options)

    def get_run_lock(self, proposal: Proposal, repetition: Repetition) -> RunLock:
        """Return the run lock of one run of a trial, without acquiring it.

        The lock gives the folder of the run's checkpoints. The caller must hold the search's lock.

        Args:
            proposal: the trial.
            repetition: the seed and fold of the run.
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
        """Train one run of a trial.

        Returns:
            The run's metrics, and whether it is saved on disk and not yet sent.
        """
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
