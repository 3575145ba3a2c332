"""Identity of the tracked run that a model card describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class RunIdentity:
    """Identity of the tracked run that a model card describes.

    Attributes:
        run_id: MLflow's id.
        started: start time in milliseconds since 1970.
        tags: the run's tags.
    """

    run_id: str
    started: int
    tags: Mapping[str, str]

    @property
    def day(self) -> str:
        """The day on which the run began, in ISO format, UTC."""
        return datetime.fromtimestamp(self.started / 1000, UTC).date().isoformat()
