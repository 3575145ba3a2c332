"""Files of the run that trained a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_lab import tracking
from melanoma_lab.comparison.tracked import artifact_of
from melanoma_lab.config.schema import Tracking
from melanoma_lab.errors import UserError
from melanoma_lab.tracking.connection import usable
from melanoma_lab.tracking.record import ARTIFACTS


@contextmanager
def file_of_run(run_id: str, name: str, tracked: Tracking) -> Iterator[Path]:
    """An artifact of a run, tracked or waiting to be sent, for the block.

    Args:
        run_id: MLflow's.
        name: of the file.
        tracked: where runs are recorded.

    Raises:
        UserError: the run or the file is not there.
    """
    waiting = Path(tracked.unsent) / run_id / ARTIFACTS / name
    if waiting.is_file():
        yield waiting
        return
    client = tracking.connect_for_reading(tracked)
    with usable(tracked.uri):
        run = client.get_run(run_id)
    try:
        with artifact_of(client, run, name) as path:
            yield path
    except OSError as error:
        raise UserError(f"run {run_id}: its {name} is not there.") from error
