"""What a search came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.tuning.sweep import Sweep


@dataclass(frozen=True)
class TuningResult:
    """What a search came to.

    Attributes:
        study: its study.
        score: of the best trial.
        values: the searched keys of the best trial, as overrides have them.
        preset: the file that holds the best configuration.
        report: the page.
        commands: what to type next.
        run_id: of the search, in MLflow.
        sweep: everything about it.
    """

    study: str
    score: float
    values: dict[str, str]
    preset: Path
    report: Path
    commands: tuple[str, ...]
    run_id: str
    sweep: Sweep
