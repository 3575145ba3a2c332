"""Send the runs that are saved on disk to the tracking server, and delete those that arrived."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri, mask_password
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.locks import get_lock_path, hold_lock
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.tracking.client import (
    locked_access,
    mlflow_client,
    summarize_error,
)
from melanoma_lab.tracking.offline_store import load_offline_runs
from melanoma_lab.tracking.upload import send_offline_run


def run(config: Config, _arm: Arm) -> None:
    """Send runs that are kept on the disk to the tracking server."""
    sync_runs(config.tracking, elsewhere=_is_typed("tracking.uri"))


def _is_typed(key: str) -> bool:
    """Return whether the command line gives a key a value."""
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task
    return any(override.lstrip("+").startswith(f"{key}=") for override in typed)


def sync_runs(tracking: Tracking, *, elsewhere: bool) -> None:
    """Send every run in the folder ``tracking.unsent``.

    Args:
        elsewhere: whether to send all runs to ``tracking.uri``, rather than each to the server for
            which it was recorded.

    Raises:
        RunError: some runs were not sent; they stay in the folder.
    """
    unsent = Path(tracking.unsent)
    with hold_lock(get_lock_path(str(unsent.resolve()))):
        failures: dict[str, str] = {}
        runs = list(load_offline_runs(unsent))
        for folder, record in runs:
            to = tracking
            if not elsewhere:
                artifacts = record.artifacts or tracking.artifacts
                to = dataclasses.replace(tracking, uri=record.uri, artifacts=artifacts)
            if to.uri in failures:  # it has failed for another run already
                continue
            try:
                with locked_access(to.uri):
                    client = mlflow_client(to.uri)
                    client.search_experiments(max_results=1)  # creates the tables of a new database
                run_id = send_offline_run(client, record, folder, to)
            except Exception as error:  # noqa: BLE001 - servers and drivers raise any type
                failures[to.uri] = summarize_error(error)
                continue
            shutil.rmtree(folder)
            console.print(
                f"sent: {record.name} (study {record.study}), run {run_id}, "
                f"to {mask_password(to.uri)}",
                markup=False,
            )
        left = list(load_offline_runs(unsent))
        if not left:
            with suppress(OSError):  # the folder has other files, or does not exist
                unsent.rmdir()
    if failures:
        why = "; ".join(f"{describe_tracking_uri(uri)}: {error}" for uri, error in failures.items())
        raise RunError(
            f"{len(left)} of {len(runs)} runs were not sent and stay in {unsent} ({why}). "
            f"Try again, or send them elsewhere: {format_lab_command('sync', 'tracking.uri=URI')}"
        )
    if not runs:
        console.print(f"Nothing to send: there are no unsent runs in {unsent}.", markup=False)
