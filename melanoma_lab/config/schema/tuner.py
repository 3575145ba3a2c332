"""The group ``tuner``: search space, algorithm and length of a hyperparameter search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.core.formatting import SPLIT_METRIC_NAMES, split_positive_class_metric
from melanoma_lab.registry import Option, option

#: Metrics that a search can optimise, besides those of the positive class.
OBJECTIVES = tuple(f"val/{name}" for name in SPLIT_METRIC_NAMES)


@dataclass
class Tuner(Option):
    """Base class of all search algorithms."""

    #: Metric of the validation split that is optimised; the test split is not used.
    objective: str = "val/balanced_accuracy"
    #: Dotted key or group -> a list of choices, or ``{min, max, step, log}``; each may have
    #: ``when``, the choices of other keys under which it is searched. null: the learning rate and
    #: the keys of the chosen regularisation.
    space: Any = None  # a mapping; typed Any because OmegaConf cannot merge into one that is null
    #: Seeds of each trial, whose score is the mean over them; null: ``seed`` alone.
    seeds: list[int] | None = None
    #: Folds of each trial, for ``split=cross_val`` or ``kfold``; null: ``split.fold`` alone.
    folds: list[int] | None = None
    #: Seed of the proposed values; the top-level ``seed`` is that of training.
    seed: int = 0
    #: Number of trials that may fail in a row before the search gives up.
    max_failures: int = 5
    #: Number of processes on this machine that train trials at the same time.
    workers: int = 1
    #: Seconds that a worker on another machine waits for its chief to start.
    chief_timeout: float = 600.0
    #: Seconds without contact to a worker after which its trial is given to another. A worker that
    #: cannot reach its chief ends after half of this, so that no two workers train one trial.
    worker_timeout: float = 120.0

    def __post_init__(self) -> None:
        split, _, metric = self.objective.rpartition("/")
        of_class = split == "val" and split_positive_class_metric(metric)
        if self.objective not in OBJECTIVES and not of_class:
            hint = suggest_choice(
                f"val/{metric}" if split in {"", "test", "train"} else metric, OBJECTIVES
            )
            if split == "test":
                hint = f"The test split is not used while tuning. {hint}"
            raise UserError(f"tuner.objective={self.objective}: no such validation metric. {hint}")
        require(
            self.space is None or isinstance(self.space, dict),
            "tuner.space",
            "a mapping from keys to their possible values, such as "
            "{optimizer.learning_rate:{min:1e-4,max:1e-2,log:true}}",
            self.space,
        )
        for key in ("seeds", "folds"):
            values = getattr(self, key)
            require(
                values is None or (values and len(set(values)) == len(values)),
                f"tuner.{key}",
                "different whole numbers, such as [0,1,2], or null",
                values,
            )
        require(
            all(0 <= seed < 2**32 for seed in self.seeds or []),
            "tuner.seeds",
            "0 to 2**32 - 1 each",
            self.seeds,
        )
        require(0 <= self.seed < 2**32 - 1, "tuner.seed", "0 to 2**32 - 2", self.seed)
        require(self.max_failures >= 1, "tuner.max_failures", "at least 1", self.max_failures)
        require(self.workers >= 1, "tuner.workers", "at least 1", self.workers)
        require(self.chief_timeout > 0, "tuner.chief_timeout", "more than 0", self.chief_timeout)
        require(
            self.worker_timeout >= 10, "tuner.worker_timeout", "at least 10", self.worker_timeout
        )


@option("tuner", "random")
@dataclass
class RandomSearch(Tuner):
    """Trials that are drawn independently from the whole space."""

    #: Number of trials.
    max_trials: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_trials >= 1, "tuner.max_trials", "at least 1", self.max_trials)


@option("tuner", "bayesian")
@dataclass
class BayesianOptimization(RandomSearch):
    """Trials for which a Gaussian process, fitted to earlier trials, expects the best scores."""

    #: Number of random trials before the Gaussian process is fitted; null: three for each key.
    initial_trials: int | None = None
    #: Weight of a score's uncertainty, in standard deviations; higher values explore more.
    exploration: float = 2.6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.initial_trials is None or self.initial_trials >= 1,
            "tuner.initial_trials",
            "at least 1, or null",
            self.initial_trials,
        )
        require(self.exploration >= 0, "tuner.exploration", "0 or more", self.exploration)


@option("tuner", "grid")
@dataclass
class GridSearch(Tuner):
    """Every combination, in order; a range without a step is divided into ten values."""

    #: Number of trials; null: all combinations.
    max_trials: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.max_trials is None or self.max_trials >= 1,
            "tuner.max_trials",
            "at least 1, or null",
            self.max_trials,
        )


@option("tuner", "hyperband")
@dataclass
class Hyperband(Tuner):
    """Many trials for one or a few epochs, and the best of them for more; Li et al. (2018)."""

    #: Epochs of the longest trials; schedules span them, however early a trial ends.
    max_epochs: int = 9
    #: One of ``factor`` trials continues, for ``factor`` times as many epochs.
    factor: int = 3
    #: How often the whole search is repeated, with other trials.
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_epochs >= 2, "tuner.max_epochs", "at least 2", self.max_epochs)
        require(self.factor >= 2, "tuner.factor", "at least 2", self.factor)
        require(self.iterations >= 1, "tuner.iterations", "at least 1", self.iterations)
