"""The runs of a study's arms in MLflow, with their identity and their files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.tracking.client import iterate_pages
from melanoma_lab.tracking.parent_runs import SWEEP_TAG
from melanoma_lab.tracking.run_reader import build_unknown_study_error, fetch_artifact

PAGE = 1000
#: Tags of an ensemble: the seeds and the folds of its members.
SEEDS_TAG, FOLDS_TAG = "members", "member_folds"
#: Tag of the evaluation of a saved model on another dataset, which belongs to no arm: the id of
#: the model's run.
EVALUATED_TAG = "evaluated_run"


@dataclass(frozen=True, order=True)
class RunKey:
    """Identity of a run within a study, sorted by arm, seed and fold."""

    arm: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed}" + (f" fold {self.fold}" if self.fold else "")


def find_arm_runs(client: Any, name: str) -> list[Any]:
    """Return all runs of a study's arms, newest first.

    Raises:
        UserError: there is no such study.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise build_unknown_study_error(name, [entry.name for entry in client.search_experiments()])
    runs = iterate_pages(
        client.search_runs,
        [experiment.experiment_id],
        max_results=PAGE,
        order_by=["attributes.start_time DESC"],
    )
    return [run for run in runs if _has_arm(run)]


def _has_arm(run: Any) -> bool:
    """Return whether a run belongs to an arm.

    Trials of a search, evaluations of a model on another dataset and foreign runs do not.
    """
    tags = run.data.tags
    return (
        "arm" in tags
        and SWEEP_TAG not in tags
        and EVALUATED_TAG not in tags
        and tags.get("seed", "").isdigit()
        and tags.get("fold", "").isdigit()
    )


def read_run_key(run: Any) -> RunKey:
    """Return a run's identity within its study; of an ensemble, the first seed and fold count."""
    tags = run.data.tags
    return RunKey(tags["arm"], int(tags["seed"]), int(tags["fold"]))


def read_covered_repetitions(tags: Mapping[str, str]) -> frozenset[tuple[int, int]]:
    """Return the pairs of seed and fold with which a run, or its members, were trained."""
    seeds = tags.get(SEEDS_TAG, tags["seed"]).split(",")
    folds = tags.get(FOLDS_TAG, tags["fold"]).split(",")
    return frozenset(product(map(int, seeds), map(int, folds)))


@contextmanager
def open_artifact(client: Any, run: Any, name: str) -> Iterator[Path]:
    """Yield the path of a run's artifact; if it is not on this disk, download it for the block.

    Raises:
        OSError: the artifact is missing, as for ``fetch_artifact``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_artifact(client, run, name, Path(scratch))


def load_predictions(client: Any, run: Any) -> Predictions:
    """Read the predictions of a run.

    Raises:
        OSError: the file is missing.
        ValueError: the file is not a predictions table.
    """
    with open_artifact(client, run, "predictions.csv") as path:
        return Predictions.read(path)
