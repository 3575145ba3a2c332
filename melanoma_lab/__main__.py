"""``python -m melanoma_lab``: compose the command with Hydra, check it, hand it to its task."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab import registry
from melanoma_lab.cli import multirun
from melanoma_lab.cli.arguments import normalise_arguments
from melanoma_lab.cli.help import format_help
from melanoma_lab.cli.job_validation import validate_seeds_once
from melanoma_lab.config.arm import parse_arm
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.required_keys import check_dataset_root, check_required_keys
from melanoma_lab.config.schema import Task
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.launching.job_status import JobStatusStore, collect_jobs
from melanoma_lab.launching.parallel_jobs import InterruptHandler


def hydra_command(notes: JobStatusStore) -> Callable[[], None]:
    """Hydra's part of the command: each of its jobs, composed, is checked and done.

    Args:
        notes: where jobs note what becomes of them; a launcher takes them along to its processes.
    """
    theirs = registry.get_user_options()

    @hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")
    def run_job(composed: DictConfig) -> None:
        registry.register_user_options(
            theirs
        )  # a launcher's process may not have run the user's script
        with multirun.record_job(composed, notes):
            config = validate_config(composed)
            check_required_keys(config)
            if config.task is not Task.download:
                check_dataset_root(config.dataset)
            arm = parse_arm(list(HydraConfig.get().overrides.task))
            from melanoma_lab import commands

            commands.run_command(config, arm)

    return cast("Callable[[], None]", run_job)


def main() -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 a mistake, 130 interrupted."""
    # Hydra would print its own version of an error and exit with 1; this makes it raise instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # At its exit Python would look through half a million objects of TensorFlow and others for
    # garbage, which takes seconds; the process's memory goes back all the same.
    atexit.register(gc.freeze)
    try:
        sys.argv[1:] = normalise_arguments(sys.argv[1:])
        if {"--help", "-h"} & {*sys.argv[1:]}:
            print(format_help(sys.argv[1:]))
            return
        notes = _launch()
        if notes.error is not None:
            raise notes.error
        multirun.finish_multirun(notes.jobs, notes.broken)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        sys.exit(_report(str(error), status=2))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_report(explain_hydra_error(error), status=2))
    except RunError as error:
        sys.exit(_report(str(error), status=1))
    except OSError as error:
        sys.exit(_report(explain_os_error(error), status=1))


def _launch() -> JobStatusStore:
    """Let Hydra run the jobs that the command line asks for.

    Returns:
        What became of them.

    Raises:
        HydraException, OmegaConfBaseException, UserError: they cannot be composed.
    """
    try:
        with collect_jobs() as notes, validate_seeds_once():
            # Ctrl-C, or a polite kill (a cluster's, a container's): runs are marked KILLED. SIGINT
            # too: a shell's background job would ignore it.
            interrupt = InterruptHandler(notes)
            for polite in (signal.SIGINT, signal.SIGTERM):
                signal.signal(polite, interrupt)
            hydra_command(notes)()
    except (HydraException, OmegaConfBaseException, UserError, OSError):
        raise
    except Exception as error:  # such as a parser's, or a launcher's
        raise UserError(f"Hydra cannot run this command: {explain_hydra_error(error)}") from error
    return notes


def _report(message: str, *, status: int) -> int:
    print(f"melanoma_lab: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
