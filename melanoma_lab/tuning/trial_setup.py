"""Prepare the trials of a search, in the same way in all of its processes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melanoma_lab.config.fingerprint import tuner_to_dict
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.data.cache import get_cache_folder
from melanoma_lab.runs.run_spec import fingerprint_run
from melanoma_lab.training.backend import choose_threads
from melanoma_lab.tuning.plan import SearchPlan
from melanoma_lab.tuning.trial import TrialRunner, list_repetitions

if TYPE_CHECKING:
    from melanoma_lab.tracking.tracker import Tracker

#: Keys of the group ``tuner`` that do not change the identity of a search.
BUDGET_KEYS = (
    *("max_trials", "iterations", "max_failures"),
    *("workers", "chief_timeout", "worker_timeout"),
)


def prepare_trials(plan: SearchPlan, tracker: Tracker) -> TrialRunner:
    """Prepare the images and build the runner of a search's trials.

    Args:
        plan: the plan of the search.
        tracker: the tracker that records the trials.

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
    trials.sweep = _fingerprint(plan, trials)
    return trials


def _fingerprint(plan: SearchPlan, trials: TrialRunner) -> str:
    """Hash the identity of a search: the space, the algorithm, the base configuration, the data."""
    algorithm = {
        k: v for k, v in tuner_to_dict(plan.config).items() if k not in {*BUDGET_KEYS, "space"}
    }
    bases = []
    for repetition in trials.repetitions:
        base, _ = plan.command.configure(repetition.overrides())
        data = trials.load_dataset(base)
        bases.append(fingerprint_run(base, data))
    space: list[Any] = [asdict(entry) for entry in plan.searched]
    text = json.dumps([algorithm, space, bases], sort_keys=True)
    return hash_text(text, 16)
