"""Write the model card of a tracked run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.compatibility import NO_RUN
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.inference import prediction_messages
from melanoma_lab.reports.model_card import PAGES, write_tracked_run_card
from melanoma_lab.tracking.run_reader import read_run


def run(config: Config, _arm: Arm) -> None:
    """Write ``model_card.md`` and ``model_card.html`` of a run; does not load TensorFlow.

    Raises:
        UserError: there is no such run, it lacks the data of a card, or the folder cannot be used.
    """
    if not config.model:
        raise UserError(NO_RUN)
    folder = Path(config.output or ".").expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={truncate(folder)}: is a file; name a folder.")
    if not folder.parent.is_dir():
        raise UserError(f"output={truncate(folder)}: no such folder: {folder.parent}.")
    run_id = config.model.removeprefix("runs:/").split("/")[0]
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        write_tracked_run_card(read_run(run_id, config.tracking, Path(scratch)), folder)
    console.print(f"written to {folder}: {', '.join(PAGES)}", markup=False)
    prediction_messages.show_notice()
