"""The group ``tuner``: what ``tune`` searches, by which algorithm, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.core.metric_names import POSITIVE_CLASS_METRIC_NAMES, SPLIT_METRIC_NAMES
from melanoma_lab.registry import option

#: What may be searched for; their directions are known.
OBJECTIVES = tuple(f"val/{name}" for name in (*SPLIT_METRIC_NAMES, *POSITIVE_CLASS_METRIC_NAMES))


@dataclass
class Tuner:
    """What every algorithm has."""

    name: str = MISSING
    #: Which of the metrics of the validation split decides; the test split is not looked at.
    objective: str = "val/balanced_accuracy"
    #: Dotted key or group -> a list of choices, or ``{min, max, step, log}``; each with ``when``,
    #: the choices of other keys that it is searched under. null: the learning rate, and what the
    #: chosen regularisation has.
    space: Any = None  # a mapping; OmegaConf merges nothing into one that is null
    #: Each trial is trained with all of these and scored by the mean; null: with ``seed`` alone.
    seeds: list[int] | None = None
    #: The same, of the folds of ``split=cross_val`` or ``kfold``; null: with ``split.fold`` alone.
    folds: list[int] | None = None
    #: Of the proposals; ``seed`` is that of the trainings.
    seed: int = 0
    #: Trials that may fail in a row before the search gives up.
    max_failures: int = 5
    #: Processes of this machine that train trials at once.
    workers: int = 1
    #: Seconds that a worker on another machine waits for its chief to come up.
    chief_timeout: float = 600.0
    #: Seconds without a word from a worker after which its trial is given to another; one that
    #: cannot reach its chief ends after half of them, so that no two train one trial.
    worker_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            split, _, metric = self.objective.rpartition("/")
            hint = suggest_choice(
                f"val/{metric}" if split in {"", "test", "train"} else metric, OBJECTIVES
            )
            if split == "test":
                hint = f"The test split is not looked at while tuning. {hint}"
            raise UserError(f"tuner.objective={self.objective}: no such metric of val. {hint}")
        require(
            self.space is None or isinstance(self.space, dict),
            "tuner.space",
            "a mapping from keys to what they may be, such as "
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
    """Every trial drawn anew from the whole space."""

    max_trials: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_trials >= 1, "tuner.max_trials", "at least 1", self.max_trials)


@option("tuner", "bayesian")
@dataclass
class BayesianOptimization(RandomSearch):
    """Trials where a Gaussian process, fitted to the earlier ones, expects most."""

    #: Trials drawn at random before the process is fitted; null: three for each searched key.
    initial_trials: int | None = None
    #: How much more an uncertain place is worth, in standard deviations: more explores more.
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
    """Every combination, in order; a range without a step is cut into ten."""

    #: null: as many as there are.
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
    """Many trials for an epoch or a few, and the best of them for longer; Li et al. (2018)."""

    #: Epochs of the longest trials; schedules are as long, however early a trial ends.
    max_epochs: int = 9
    #: One trial in so many goes on, for so many times the epochs.
    factor: int = 3
    #: How often the whole is done, with other trials.
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_epochs >= 2, "tuner.max_epochs", "at least 2", self.max_epochs)
        require(self.factor >= 2, "tuner.factor", "at least 2", self.factor)
        require(self.iterations >= 1, "tuner.iterations", "at least 1", self.iterations)
