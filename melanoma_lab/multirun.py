"""A multirun: its jobs fail one by one, and at its end the study is compared.

Hydra raises the first job's error when all are through and then skips its own end-of-multirun
callbacks, so that a job here never raises: what became of it is noted in a file, which also reaches
the main process where a launcher runs jobs in processes of their own on this machine.
"""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab.comparison.arms import shorten
from melanoma_lab.config.arm import Arm, describe_arm
from melanoma_lab.config.schema import Config, Task, Tracking
from melanoma_lab.console import console
from melanoma_lab.errors import RunError, UserError, explain_os_error

if TYPE_CHECKING:  # its module loads pandas
    from melanoma_lab.comparison.result import ComparedStudy

#: Environment variable: the folder in which jobs note what became of them.
NOTES = "MELANOMA_LAB_JOBS"


@dataclass(frozen=True)
class Job:
    """What became of one job.

    Attributes:
        number: its place in the multirun.
        arm: its arm.
        repetition: its seed, and its fold where there are any.
        task: what it did.
        study: for which study.
        metric: that gives the study's verdicts.
        uri: where runs are recorded; empty where they are kept to be sent later.
        failure: the exit status that it alone would have ended with; 0 where it succeeded.
        reason: of the failure.
    """

    number: int
    arm: str
    repetition: str
    task: str
    study: str
    metric: str
    uri: str
    failure: int
    reason: str


def in_multirun() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def noted(composed: DictConfig) -> Iterator[None]:
    """Note how the job in the block ends; in a multirun its failure ends there.

    Args:
        composed: the job's configuration, not checked yet.
    """
    folder = os.environ.get(NOTES)
    if not in_multirun() or folder is None:
        yield
        return
    with surviving() as ending:
        yield
    job = _job(composed, ending)
    Path(folder, f"{job.number}.json").write_text(json.dumps(asdict(job)), encoding="utf-8")


@dataclass
class Ending:
    """How a job ended.

    Attributes:
        failure: the exit status that it alone would have ended with; 0 where it succeeded.
        reason: of the failure.
    """

    failure: int = 0
    reason: str = ""


@contextmanager
def surviving() -> Iterator[Ending]:
    """Say how the block ends; nothing but an interruption comes out of it.

    Yields:
        What is filled in when the block is through.
    """
    ending = Ending()
    try:
        yield ending
    except UserError as error:
        ending.failure, ending.reason = 2, str(error)
    except RunError as error:
        ending.failure, ending.reason = 1, str(error)
    except OSError as error:
        ending.failure, ending.reason = 1, explain_os_error(error)
    except Exception as error:  # noqa: BLE001 - a bug in one arm must not cost the others
        traceback.print_exc()
        ending.failure, ending.reason = 1, f"{type(error).__name__}: {error}"
    if ending.failure:
        console.print(f"Failed: {ending.reason}", style="bold red", markup=False)


def _job(composed: DictConfig, ending: Ending) -> Job:
    hydra = HydraConfig.get()
    arm = describe_arm(list(hydra.overrides.task))

    def value(key: str) -> str:
        return str(_select(composed, key))

    return Job(
        number=int(hydra.job.num),
        arm=arm.name,
        repetition=_repetition(value("seed"), OmegaConf.select(composed, "split.fold")),
        task=value("task").removeprefix("Task."),
        study=value("study"),
        metric=value("metric"),
        uri="" if _select(composed, "tracking.offline") else value("tracking.uri"),
        failure=ending.failure,
        reason=ending.reason,
    )


def job_of(config: Config, arm: Arm, number: int, ending: Ending) -> Job:
    """What became of a job whose configuration has been checked.

    Args:
        config: its configuration.
        arm: its arm.
        number: its place in the multirun.
        ending: how it ended.
    """
    return Job(
        number=number,
        arm=arm.name,
        repetition=_repetition(config.seed, getattr(config.split, "fold", None)),
        task=config.task,
        study=config.study,
        metric=config.metric,
        uri="" if config.tracking.offline else config.tracking.uri,
        failure=ending.failure,
        reason=ending.reason,
    )


def _repetition(seed: object, fold: object) -> str:
    return f"seed {seed}" + (f" fold {fold}" if fold is not None else "")


def _select(composed: DictConfig, key: str) -> Any:
    """The value of a key; None where it has none, which may be what the job failed for."""
    try:
        return OmegaConf.select(composed, key)
    except (AttributeError, OmegaConfBaseException):  # AttributeError: its group is missing
        return None


@contextmanager
def noting() -> Iterator[list[Job]]:
    """Collect the jobs that run in the block.

    Yields:
        A list that holds them when the block is through, in their order; it stays empty where
        nothing but a single run was asked for.
    """
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
        os.environ[NOTES] = folder
        try:
            yield jobs
        finally:
            del os.environ[NOTES]
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).iterdir()]
    jobs += sorted((Job(**note) for note in notes), key=lambda job: job.number)


def conclude(jobs: Sequence[Job]) -> list[ComparedStudy]:
    """Compare what a multirun trained, then say which of its jobs failed.

    Args:
        jobs: all of them; none, and nothing is done, after a single run.

    Returns:
        The studies, compared.

    Raises:
        UserError: jobs failed by mistakes of the user alone, or the runs cannot be compared.
        RunError: jobs failed for another reason.
    """
    trained = [job for job in jobs if job.task == Task.train and not job.failure and job.uri]
    problems, compared = [], []
    for study, uri, metric in dict.fromkeys((job.study, job.uri, job.metric) for job in trained):
        from melanoma_lab.tasks.compare import report_study

        try:
            compared.append(
                report_study(
                    study,
                    reference=None,
                    metric=metric,
                    tracked=Tracking(uri=uri),
                    folder=Path("experiments"),
                )
            )
        except UserError as error:
            problems.append(f"The study was not compared. {error}")
    failed = [job for job in jobs if job.failure]
    if failed:
        problems.insert(0, describe_failures(jobs))
    if problems:
        mistake = all(job.failure == 2 for job in failed)
        raise (UserError if mistake else RunError)("\n".join(problems))
    return compared


def describe_failures(jobs: Sequence[Job]) -> str:
    """Name the jobs that failed; those that failed for one reason together.

    Args:
        jobs: all of a multirun, in their order; one or more of them failed.
    """
    short = shorten({job.arm for job in jobs})
    by_reason: dict[str, list[str]] = {}
    for job in jobs:
        if job.failure:
            by_reason.setdefault(job.reason, []).append(f"{short[job.arm]} {job.repetition}")
    n_failed = sum(map(len, by_reason.values()))
    if n_failed == len(jobs) and len(by_reason) == 1:
        return next(iter(by_reason))  # the same mistake in all of them
    lines = [f"  {'; '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([f"{n_failed} of {len(jobs)} runs failed:", *lines])
