"""The runs of a study as MLflow has them: which run each is, and where its files lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.evaluation import predictions
from melanoma_lab.tracking.run_reader import fetch_artifact
from melanoma_lab.tracking.sqlite_reader import build_unknown_study_error
from melanoma_lab.tracking.sweep_run import SWEEP_TAG

PAGE = 1000
#: On an ensemble: the seeds and the folds of the runs that it is made of.
SEEDS_TAG, FOLDS_TAG = "members", "member_folds"
#: On an evaluation of a kept model on another dataset, which is of no arm: the model's run.
EVALUATED_TAG = "evaluated_run"


@dataclass(frozen=True)
class RunKey:
    """Which run of a study: one arm, one seed, one fold."""

    arm: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed}" + (f" fold {self.fold}" if self.fold else "")


def find_arm_runs(client: Any, name: str) -> list[Any]:
    """All runs of a study's arms, newest first.

    Args:
        client: an MlflowClient.
        name: of the study.

    Raises:
        UserError: there is no such study.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise build_unknown_study_error(name, [entry.name for entry in client.search_experiments()])
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            max_results=PAGE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        runs += [run for run in page if _is_of_arm(run)]
        token = page.token
        if not token:
            return runs


def _is_of_arm(run: Any) -> bool:
    """Whether a run is of an arm.

    Trials of a search are not, nor evaluations, nor what somebody put beside them.
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
    """Which run of its study it is; of an ensemble, the first of its seeds and folds."""
    tags = run.data.tags
    return RunKey(tags["arm"], int(tags["seed"]), int(tags["fold"]))


def read_covered_repetitions(tags: Mapping[str, str]) -> frozenset[tuple[int, int]]:
    """The seeds and folds that a run was trained with: its own, or those of its members.

    Args:
        tags: of the run.
    """
    seeds = tags.get(SEEDS_TAG, tags["seed"]).split(",")
    folds = tags.get(FOLDS_TAG, tags["fold"]).split(",")
    return frozenset(product(map(int, seeds), map(int, folds)))


@contextmanager
def open_artifact(client: Any, run: Any, name: str) -> Iterator[Path]:
    """An artifact of a run, from the disk where it lies there, else downloaded for the block.

    Args:
        client: an MlflowClient.
        run: as MLflow has it.
        name: of the file.

    Raises:
        OSError: it is not there, as ``fetch_artifact`` has it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_artifact(client, run, name, Path(scratch))


def load_predictions(client: Any, run: Any) -> pd.DataFrame:
    """The predictions table of a run.

    Raises:
        OSError: it is not there.
        ValueError: it is no predictions table.
    """
    with open_artifact(client, run, "predictions.csv") as path:
        return predictions.read_predictions(path)
