"""The plan of a search and of its trials, validated before TensorFlow or any data are loaded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config, check_positive_class_metric
from melanoma_lab.config.schema.architecture import TrivialArchitecture
from melanoma_lab.config.schema.data import FoldSplit
from melanoma_lab.config.schema.regularisation import CombinedRegularisation, Dropout
from melanoma_lab.config.schema.tuner import Hyperband
from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.distributed.process_role import ProcessRole, read_role
from melanoma_lab.tuning.search_space import HyperParameter, Values, parse_space
from melanoma_lab.tuning.space_validation import TuneCommand, validate_space


@dataclass(frozen=True)
class Proposal:
    """The values and epochs that the oracle proposes for a trial.

    Attributes:
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


#: By default, the learning rate is searched from the configured one divided by this factor to the
#: configured one times it.
DEFAULT_RATE_FACTOR = 10.0
#: The default range of a dropout rate. A higher rate would drop nearly all of a layer.
DEFAULT_DROPOUT = {"min": 0.0, "max": 0.6}
#: Option of the group ``regularisation`` -> its key -> its default range.
DEFAULT_REGULARISATION: dict[str, dict[str, dict[str, Any]]] = {
    "l2": {"factor": {"min": 1e-6, "max": 1e-2, "log": True}},
    "label_smoothing": {"factor": {"min": 0.0, "max": 0.3}},
    "weight_decay": {"factor": {"min": 1e-3, "max": 0.5, "log": True}},
    "stochastic_depth": {"rate": {"min": 0.0, "max": 0.5}},
}


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search.

    Attributes:
        role: the role of this process in a search over several machines; None if it searches alone.
    """

    config: Config
    arm: Arm
    command: TuneCommand
    searched: Sequence[HyperParameter]
    role: ProcessRole | None = None


def parse_command() -> TuneCommand:
    """Parse this process's command line into the overrides that all trials share."""
    hydra = HydraConfig.get()
    folders = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return TuneCommand.from_overrides(list(hydra.overrides.task), folders[0] if folders else None)


def plan_search(config: Config, arm: Arm, command: TuneCommand) -> SearchPlan:
    """Validate a search before TensorFlow or any data are loaded.

    Raises:
        UserError: the space, the objective or the budget is invalid, or the environment variables
            for a search over several machines are incomplete.
    """
    tuner, role = config.tuner, read_role(os.environ)
    check_positive_class_metric("tuner.objective", tuner.objective, config.dataset)
    _check_folds(config)
    if config.tracking.offline:
        raise UserError(
            "tracking.offline=true: a search records its trials below a parent run, which needs "
            "a database or server; record them in a file: tracking.uri=sqlite:///mlflow.db"
        )
    if not config.training.resume:
        raise UserError(
            "training.resume=false: a search resumes from the checkpoints of its trials."
        )
    if tuner.space is None and isinstance(config.architecture, TrivialArchitecture):
        raise UserError(
            f"tune: architecture={config.architecture.name} is not trained by epochs, so the "
            "default search space does not apply to it. Name keys that do: "
            "tuner.space={balancing:[none,class_weight]}"
        )
    space = build_default_space(config) if tuner.space is None else tuner.space
    base = command
    if isinstance(tuner, Hyperband):
        if "training.epochs" in space:
            raise UserError(
                "tuner.space: training.epochs: tuner=hyperband chooses it, up to tuner.max_epochs."
            )
        budget = f"training.epochs={tuner.max_epochs}"
        base = TuneCommand((*command.overrides, budget), command.config_dir)
    return SearchPlan(config, arm, command, validate_space(parse_space(space), base), role)


def _check_folds(config: Config) -> None:
    folds = config.tuner.folds
    if folds is None:
        return
    if not isinstance(config.split, FoldSplit):
        raise UserError(
            f"tuner.folds: split={config.split.name} has none; expected cross_val or kfold."
        )
    for fold in folds:
        if not 0 <= fold < config.split.k:
            raise UserError(f"tuner.folds: no fold {fold}; expected 0 to {config.split.k - 1}.")


def build_default_space(config: Config) -> dict[str, Any]:
    """Build the space to search around a configuration, in the form of ``tuner.space``.

    It has the learning rate, and the strength of the regularisation.
    """
    rate = config.optimizer.learning_rate
    space: dict[str, Any] = {
        "optimizer.learning_rate": {
            "min": rate / DEFAULT_RATE_FACTOR,
            "max": rate * DEFAULT_RATE_FACTOR,
            "log": True,
        }
    }
    regularisation = config.regularisation
    found = dict(DEFAULT_REGULARISATION.get(regularisation.name, {}))
    if isinstance(regularisation, Dropout | CombinedRegularisation):
        found |= {f"rates.{i}": dict(DEFAULT_DROPOUT) for i in range(len(regularisation.rates))}
    if isinstance(regularisation, CombinedRegularisation):
        for name, ranges in DEFAULT_REGULARISATION.items():
            if getattr(regularisation, name):  # a strength of 0 is off and stays off
                (found[name],) = ranges.values()
    return space | {f"regularisation.{key}": bounds for key, bounds in found.items()}
