"""Which tracked run a model card is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class RunIdentity:
    """Which tracked run a model card is of.

    Attributes:
        run_id: MLflow's.
        started: when it began, in milliseconds since 1970.
        tags: as tracked.
    """

    run_id: str
    started: int
    tags: Mapping[str, str]

    @property
    def day(self) -> str:
        """The day on which the run began, in ISO format, UTC."""
        return datetime.fromtimestamp(self.started / 1000, UTC).date().isoformat()
