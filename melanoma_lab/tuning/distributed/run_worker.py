"""Train trials of a search that another process, its chief, hands out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_lab.core.console import show_note
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.heavy_imports import load_tensorflow
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.tuning.distributed.heartbeat import Heartbeat
from melanoma_lab.tuning.distributed.process_role import ProcessRole
from melanoma_lab.tuning.distributed.transport import open_channel
from melanoma_lab.tuning.plan import SearchPlan

if TYPE_CHECKING:  # its module loads TensorFlow
    from melanoma_lab.tuning.distributed.worker import Worker

#: Signs of life that a worker gives in ``tuner.worker_timeout``.
BEATS = 24


def run_worker(plan: SearchPlan, role: ProcessRole) -> None:
    """Train what the chief hands out until the search is over.

    Args:
        plan: of the search; the chief has the same.
        role: of this process.

    Raises:
        UserError: the data, the tracking server or the chief cannot be used.
        RunError: the chief does not come up, or no longer answers.
    """
    tuner = plan.config.tuner
    show_note(f"{role.name}: asking the chief at {role.address} for trials.")
    with Heartbeat(tuner.worker_timeout / BEATS) as lifeline:
        try:
            worker = _work(plan, role, lifeline)
        except KeyboardInterrupt:
            if lifeline.lost is not None:
                raise lifeline.lost from None
            raise
    if worker.unsent:
        raise RunError(
            f"The runs of {worker.unsent} trials wait here to be sent: {format_lab_command('sync')}"
        )
    show_note(f"The search is over; {worker.count} of its trials were trained here.")


def _work(plan: SearchPlan, role: ProcessRole, lifeline: Heartbeat) -> Worker:
    tuner = plan.config.tuner
    with (
        open_channel(role, timeout=tuner.chief_timeout) as channel,
        tempfile.TemporaryDirectory() as folder,
    ):
        connecting = connect(plan.config.tracking, plan.config.study)
        load_tensorflow()
        from melanoma_lab.tuning.distributed.worker import ChiefClient, Worker
        from melanoma_lab.tuning.oracles import build_oracle
        from melanoma_lab.tuning.trial_runner import prepare_trials

        trials = prepare_trials(plan, connecting.result())
        oracle = build_oracle(tuner, plan.searched)
        client = ChiefClient(oracle, channel, sweep=trials.sweep, patience=tuner.worker_timeout / 2)
        lifeline.show_by(client.show_life)
        worker = Worker(
            oracle,
            client,
            searched=plan.searched,
            tuner=tuner,
            trials=trials,
            lifeline=lifeline,
            folder=Path(folder) / "keras_tuner",
        )
        try:
            worker.search()
        except BaseException:
            client.leave()
            raise
        return worker
