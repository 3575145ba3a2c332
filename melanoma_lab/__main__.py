"""``python -m melanoma_lab``: compose the command with Hydra, check it, hand it to its task."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab import multirun
from melanoma_lab.config.arm import describe_arm
from melanoma_lab.config.command import canonical_arguments
from melanoma_lab.config.compose import CONF
from melanoma_lab.config.help import help_text
from melanoma_lab.config.schema import Task
from melanoma_lab.config.validation import explain, validate
from melanoma_lab.data.root import check_root
from melanoma_lab.errors import RunError, UserError, explain_os_error


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def run_task(composed: DictConfig) -> None:
    """One job of the command: what Hydra composed, checked and done."""
    with multirun.noted(composed):
        config = validate(composed)
        if config.task is not Task.download:
            check_root(config.dataset)
        arm = describe_arm(list(HydraConfig.get().overrides.task))
        from melanoma_lab import tasks

        tasks.TASKS[config.task](config, arm)


def main() -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 a mistake, 130 interrupted."""
    # Hydra would print its own version of an error and exit with 1; this makes it raise instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # SIGINT too: a shell's background job would ignore it.
    for polite in (signal.SIGINT, signal.SIGTERM):
        signal.signal(polite, _interrupt)
    try:
        sys.argv[1:] = canonical_arguments(sys.argv[1:])
        if {"--help", "-h"} & {*sys.argv[1:]}:
            print(help_text(sys.argv[1:]))
            return
        with multirun.noting() as jobs:
            run_task()
        multirun.conclude(jobs)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        sys.exit(_report(str(error), status=2))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_report(explain(error), status=2))
    except RunError as error:
        sys.exit(_report(str(error), status=1))
    except OSError as error:
        sys.exit(_report(explain_os_error(error), status=1))
    except Exception as error:
        if HydraConfig.initialized():
            raise  # a bug of the lab: it keeps its traceback
        sys.exit(_report(f"the command cannot be understood: {explain(error)}", status=2))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End by Ctrl-C or a polite kill (a cluster's, a container's): the run is marked KILLED."""
    raise KeyboardInterrupt


def _report(message: str, *, status: int) -> int:
    print(f"melanoma_lab: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
