"""A trial of a search: the values that the oracle proposes, its repetitions and its score."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import FoldSplit
from melanoma_lab.tuning.search_space import Values


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
