"""Choices that are right by themselves and wrong, or doubtful, together."""

from __future__ import annotations

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.loss import LogitAdjusted
from melanoma_lab.config.schema.schedule import Plateau
from melanoma_lab.errors import UserError


def refuse_combinations(config: Config) -> None:
    """Refuse choices of which one undoes, repeats or forestalls the other.

    Raises:
        UserError: naming both.
    """
    training, schedule = config.training, config.schedule
    if (
        getattr(config.optimizer, "weight_decay", 0)
        and config.regularisation.amounts().weight_decay
    ):
        raise UserError(
            f"optimizer={config.optimizer.name} regularisation={config.regularisation.name}: both "
            "decay the weights; set optimizer.weight_decay=0 or leave weight decay out of the "
            "regularisation."
        )
    if schedule.warmup_epochs >= training.epochs:
        raise UserError(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g}: expected less than "
            f"training.epochs={training.epochs}."
        )
    patience = training.patience
    if isinstance(schedule, Plateau) and patience is not None and patience <= schedule.patience:
        raise UserError(
            f"training.patience={patience}: training stops before schedule=plateau lowers "
            f"anything; expected more than schedule.patience={schedule.patience}."
        )


def doubts(config: Config) -> list[str]:
    """What somebody may want but should know of, a sentence each."""
    found = []
    if (
        isinstance(config.loss, LogitAdjusted)
        and config.loss.tau
        and config.balancing.name != "none"
    ):
        found.append(
            f"loss=logit_adjusted and balancing={config.balancing.name} both make up for class "
            "frequencies: together they favour rare classes."
        )
    return found
