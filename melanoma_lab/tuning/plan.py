"""The plan of a search, validated before TensorFlow or any data are loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.architecture import TrivialArchitecture
from melanoma_lab.config.schema.data import FoldSplit
from melanoma_lab.config.schema.regularisation import CombinedRegularisation, Dropout
from melanoma_lab.config.schema.tuner import Hyperband
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.metric_names import POSITIVE_CLASS_METRIC_NAMES
from melanoma_lab.tuning.distributed.process_role import ProcessRole, read_role
from melanoma_lab.tuning.search_space import HyperParameter, parse_space
from melanoma_lab.tuning.space_validation import TuneCommand, validate_space

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
        config: the configuration that the search starts from.
        arm: the arm's name in its study.
        command: the overrides that all trials share.
        searched: the validated search space.
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

    Args:
        config: the validated configuration.
        arm: the arm's name in its study.
        command: the overrides that all trials share.

    Raises:
        UserError: the space, the objective or the budget is invalid, or the environment variables
            for a search over several machines are incomplete.
    """
    tuner, role = config.tuner, read_role(os.environ)
    metric = tuner.objective.removeprefix("val/")
    if metric in POSITIVE_CLASS_METRIC_NAMES and config.dataset.positive_class is None:
        raise UserError(
            f"tuner.objective={tuner.objective}: dataset={config.dataset.name} has no positive "
            "class; add dataset.positive_class=NAME."
        )
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

    Args:
        config: the validated configuration, which declares no space itself.
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
