"""``python -m melanoma_lab``: compose the command with Hydra, check it, and run its task."""

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

from melanoma_lab import __version__, registry
from melanoma_lab.cli import multirun
from melanoma_lab.cli.arguments import normalise_arguments
from melanoma_lab.cli.help import format_help
from melanoma_lab.cli.multirun import validate_seeds_once
from melanoma_lab.config.arm import parse_arm
from melanoma_lab.config.compatibility import check_dataset_root, check_required_keys
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.schema import Task
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.launching import InterruptHandler, JobStatusStore, collect_jobs


def hydra_command(notes: JobStatusStore) -> Callable[[], None]:
    """Build the function with which Hydra composes the jobs of the command line and runs each."""
    user_options = registry.get_user_options()

    @hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")
    def run_job(composed: DictConfig) -> None:
        # The process of a launcher may not have run the user's script.
        registry.register_user_options(user_options)
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
    """Run the command line and exit.

    The exit status is 0 on success, 1 if the work failed, 2 if the user's input is wrong, and 130
    after an interrupt.
    """
    # Makes Hydra raise errors; otherwise it would print them in its own words and exit with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # At exit, Python would search half a million objects of TensorFlow and others for garbage,
    # which takes seconds. The operating system frees the process's memory anyway.
    atexit.register(gc.freeze)
    try:
        if "--version" in sys.argv[1:]:
            print(f"melanoma_lab {__version__}")
            return
        sys.argv[1:] = normalise_arguments(sys.argv[1:])
        if not sys.argv[1:] or {"--help", "-h"} & {*sys.argv[1:]}:
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
    """Let Hydra run the jobs of the command line; return the store of their results.

    Raises:
        HydraException, OmegaConfBaseException, UserError: the jobs cannot be composed.
    """
    try:
        with collect_jobs() as notes, validate_seeds_once():
            # Runs are marked KILLED after Ctrl-C and after SIGTERM, which clusters and containers
            # send. SIGINT needs a handler, because it is ignored in a shell's background jobs.
            interrupt = InterruptHandler(notes)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, interrupt)
            hydra_command(notes)()
    except (HydraException, OmegaConfBaseException, UserError, OSError):
        raise
    except Exception as error:  # such as one of a parser or a launcher
        raise UserError(f"Hydra cannot run this command: {explain_hydra_error(error)}") from error
    return notes


def _report(message: str, *, status: int) -> int:
    print(f"melanoma_lab: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
