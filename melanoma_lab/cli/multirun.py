"""A multirun: its jobs fail one by one, and at its end the study is compared.

Hydra raises the first job's error when all are through, in words of its own, and then skips its own
end-of-multirun callbacks. So no job raises here: what became of it is noted.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab.config.arm import Arm, parse_arm
from melanoma_lab.config.arm_labels import shorten_arm_names
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.config.schema.tracking import Tracking, get_default_uri
from melanoma_lab.config.validation import check_interpolations
from melanoma_lab.core.console import console, show_loading
from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.launching.job_status import JobStatus, JobStatusStore
from melanoma_lab.launching.parallel_jobs import isolate_job

if TYPE_CHECKING:  # its module loads pandas
    from melanoma_lab.comparison.result import ComparedStudy


def in_multirun() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def record_job(composed: DictConfig, notes: JobStatusStore) -> Iterator[None]:
    """Note how the job in the block ends; its failure ends there.

    Args:
        composed: the job's configuration, not checked yet.
        notes: the command's.
    """
    if not in_multirun():
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the command raises it
            notes.error = error
            if isinstance(error, UserError):
                _remove_job_folder()
        return
    number = int(HydraConfig.get().job.num)
    with isolate_job(notes, number) as stoppable:
        # What stays of a job whose process does not come back.
        gone = JobResult(1, "its process ended before it did (killed? out of memory?)")
        notes.begin(_job(composed, gone), stoppable=stoppable)
        try:
            with catch_failures() as ending:
                yield
        except BaseException:
            notes.end(_job(composed, JobResult(130, "interrupted")))
            raise
        notes.end(_job(composed, ending))


def _remove_job_folder() -> None:
    """Remove what Hydra wrote for a job that was refused before it did anything."""
    hydra = HydraConfig.get()
    folder, here = Path(hydra.runtime.output_dir), Path.cwd()
    if hydra.output_subdir is None or not folder.is_relative_to(here):
        return
    shutil.rmtree(folder / hydra.output_subdir, ignore_errors=True)
    with suppress(OSError):  # there is something else in one of them
        for path in (folder, *folder.parents):
            if path == here:
                break
            path.rmdir()


@dataclass
class JobResult:
    """How a job ended.

    Attributes:
        failure: the exit status that it alone would have ended with; 0 where it succeeded.
        reason: of the failure.
    """

    failure: int = 0
    reason: str = ""


@contextmanager
def catch_failures() -> Iterator[JobResult]:
    """Say how the block ends; nothing but an interruption comes out of it.

    Yields:
        What is filled in when the block is through.
    """
    ending = JobResult()
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


def _job(composed: DictConfig, ending: JobResult) -> JobStatus:
    hydra = HydraConfig.get()
    arm = parse_arm(list(hydra.overrides.task))

    def value(key: str) -> str:
        return str(_select(composed, key))

    return JobStatus(
        number=int(hydra.job.num),
        arm=arm.name,
        repetition=_repetition(value("seed"), OmegaConf.select(composed, "split.fold")),
        task=value("task").removeprefix("Task."),
        study=value("study"),
        metric=value("metric"),
        uri=""
        if _select(composed, "tracking.offline")
        else value("tracking.uri") or get_default_uri(),
        failure=ending.failure,
        reason=ending.reason,
    )


def build_job_status(config: Config, arm: Arm, number: int, ending: JobResult) -> JobStatus:
    """What became of a job whose configuration has been checked.

    Args:
        config: its configuration.
        arm: its arm.
        number: its place in the multirun.
        ending: how it ended.
    """
    return JobStatus(
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
        check_interpolations(composed)
        return OmegaConf.select(composed, key)
    except (AttributeError, UserError, OmegaConfBaseException):
        return None  # AttributeError: its group is missing


def finish_multirun(jobs: Sequence[JobStatus], broken: str = "") -> list[ComparedStudy]:
    """Compare what a multirun trained, then say which of its jobs failed.

    Args:
        jobs: all of them; none, and nothing is done, after a single run.
        broken: why jobs are missing, where the launcher gave up.

    Returns:
        The studies, compared.

    Raises:
        UserError: jobs failed by mistakes of the user alone, or the runs cannot be compared.
        RunError: jobs failed for another reason.
    """
    trained = [job for job in jobs if job.task == Task.train and not job.failure and job.uri]
    problems, compared = [], []
    for study, uri, metric in dict.fromkeys((job.study, job.uri, job.metric) for job in trained):
        with show_loading():
            from melanoma_lab.comparison.study_report import report_study

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
    if broken:
        problems.append(
            f"The launcher gave up ({broken}), and what it had not begun was not trained. The same "
            "command goes on."
        )
    if problems:
        mistake = all(job.failure == 2 for job in failed) and not broken
        raise (UserError if mistake else RunError)("\n".join(problems))
    return compared


def describe_failures(jobs: Sequence[JobStatus]) -> str:
    """Name the jobs that failed; those that failed for one reason together.

    Args:
        jobs: all of a multirun, in their order; one or more of them failed.
    """
    short = shorten_arm_names({job.arm for job in jobs})
    by_reason: dict[str, list[str]] = {}
    for job in jobs:
        if job.failure:
            by_reason.setdefault(job.reason, []).append(f"{short[job.arm]} {job.repetition}")
    n_failed = sum(map(len, by_reason.values()))
    if n_failed == len(jobs) and len(by_reason) == 1:
        return next(iter(by_reason))  # the same mistake in all of them
    lines = [f"  {'; '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([f"{n_failed} of {len(jobs)} runs failed:", *lines])
