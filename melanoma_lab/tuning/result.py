"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports pandas, which takes long to load
    from melanoma_lab.tuning.sweep import Sweep


@dataclass(frozen=True)
class TuningResult:
    """The result of a search.

    Attributes:
        study: the name of the study.
        score: the best trial's score.
        values: the best trial's values of the searched keys, as in Hydra overrides.
        preset: the path of the preset with the best configuration.
        report: the path of the report's page.
        commands: the commands that retrain and compare the best configuration.
        run_id: the MLflow id of the search's own run.
        sweep: the search space and all trials.
    """

    study: str
    score: float
    values: dict[str, str]
    preset: Path
    report: Path
    commands: tuple[str, ...]
    run_id: str
    sweep: Sweep
