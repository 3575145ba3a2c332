"""Multiruns: a failed job does not stop the others, and at the end the study is compared.

Hydra raises the first job's exception after all jobs, with its own message, and then skips its
callbacks at the end of a multirun. Therefore jobs raise nothing here, and their status is stored.
"""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab.config.arm import Arm, check_jobs_distinct, parse_arm, shorten_arm_names
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.config.schema.tracking import Tracking, get_default_uri
from melanoma_lab.config.validation import check_interpolations
from melanoma_lab.core.console import console, show_loading
from melanoma_lab.core.errors import RunError, UserError, explain_os_error
from melanoma_lab.launching import JobStatus, JobStatusStore, isolate_job

if TYPE_CHECKING:  # its module loads pandas
    from melanoma_lab.comparison.study_report import ComparedStudy


#: An override that cannot make the composition of a job fail.
_SEED = re.compile(r"seed=\d{1,9}")


@contextmanager
def validate_seeds_once() -> Iterator[None]:
    """Make Hydra's basic sweeper validate one job of those that differ only in their seeds.

    In this context the sweeper also refuses jobs that a study could not distinguish.

    The sweeper composes all jobs before the first begins, to find mistakes early, and each job
    again when it begins. For a study that has finished, this would take half of the time. A sweeper
    of our own would avoid it, but Hydra finds sweepers only in a package ``hydra_plugins``.
    """
    # Hydra's search for plugins imports the sweeper's module anew: take the class that it found.
    Plugins.instance()
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    original = BasicSweeper.validate_batch_is_legal

    def validate(self: BasicSweeper, batch: Sequence[Sequence[str]]) -> None:
        check_jobs_distinct(batch)
        original(self, drop_seed_repeats(batch))

    BasicSweeper.validate_batch_is_legal = validate  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        BasicSweeper.validate_batch_is_legal = original  # type: ignore[method-assign]


def drop_seed_repeats(batch: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Keep the last of several jobs that differ only in their seeds."""
    by_rest = {tuple(w for w in job if not _SEED.fullmatch(w)): job for job in batch}
    return list(by_rest.values())


def in_multirun() -> bool:
    """Return whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def record_job(composed: DictConfig, store: JobStatusStore) -> Iterator[None]:
    """Store the status of the job in this context; suppress its exceptions, except interrupts.

    For a single run, store its exception instead, which the command raises.
    """
    if not in_multirun():
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the command raises it
            store.error = error
            if isinstance(error, UserError):
                _remove_job_folder()
        return
    number = int(HydraConfig.get().job.num)
    with isolate_job(store, number) as stoppable:
        # The result of the job if its process dies.
        died = JobResult(1, "its process ended unexpectedly (killed? out of memory?)")
        store.begin(_build_status(composed, died), stoppable=stoppable)
        try:
            with catch_failures() as result:
                yield
        except BaseException:
            store.end(_build_status(composed, JobResult(130, "interrupted")))
            raise
        store.end(_build_status(composed, result))


def _remove_job_folder() -> None:
    """Remove the files that Hydra wrote for a job that was refused before it started."""
    hydra = HydraConfig.get()
    folder, here = Path(hydra.runtime.output_dir), Path.cwd()
    if hydra.output_subdir is None or not folder.is_relative_to(here):
        return
    shutil.rmtree(folder / hydra.output_subdir, ignore_errors=True)
    with suppress(OSError):  # one of the folders has other files
        for path in (folder, *folder.parents):
            if path == here:
                break
            path.rmdir()


@dataclass
class JobResult:
    """Whether a job failed, and why.

    Attributes:
        failure: exit status that the job would have had as a single run; 0 if it succeeded.
        reason: reason of the failure; empty if it succeeded.
    """

    failure: int = 0
    reason: str = ""


@contextmanager
def catch_failures() -> Iterator[JobResult]:
    """Suppress all exceptions but interrupts; record them as a result, filled in at the end."""
    result = JobResult()
    try:
        yield result
    except UserError as error:
        result.failure, result.reason = 2, str(error)
    except RunError as error:
        result.failure, result.reason = 1, str(error)
    except OSError as error:
        result.failure, result.reason = 1, explain_os_error(error)
    except Exception as error:  # noqa: BLE001 - a bug in one arm must not cost the others
        traceback.print_exc()
        result.failure, result.reason = 1, f"{type(error).__name__}: {error}"
    if result.failure:
        console.print(f"Failed: {result.reason}", style="bold red", markup=False)


def _build_status(composed: DictConfig, result: JobResult) -> JobStatus:
    """Build the status of this job of a multirun from its configuration before validation."""
    hydra = HydraConfig.get()
    arm = parse_arm(list(hydra.overrides.task))

    def value(key: str) -> str:
        return str(_select(composed, key))

    return JobStatus(
        number=int(hydra.job.num),
        arm=arm.name,
        repetition=_format_repetition(value("seed"), OmegaConf.select(composed, "split.fold")),
        task=value("task").removeprefix("Task."),
        study=value("study"),
        metric=value("metric"),
        uri=""
        if _select(composed, "tracking.offline")
        else value("tracking.uri") or get_default_uri(),
        failure=result.failure,
        reason=result.reason,
    )


def build_job_status(config: Config, arm: Arm, number: int, result: JobResult) -> JobStatus:
    """Build the status of a job from its validated configuration."""
    return JobStatus(
        number=number,
        arm=arm.name,
        repetition=_format_repetition(config.seed, getattr(config.split, "fold", None)),
        task=config.task,
        study=config.study,
        metric=config.metric,
        uri="" if config.tracking.offline else config.tracking.uri,
        failure=result.failure,
        reason=result.reason,
    )


def _format_repetition(seed: object, fold: object) -> str:
    return f"seed {seed}" + (f" fold {fold}" if fold is not None else "")


def _select(composed: DictConfig, key: str) -> Any:
    """Return the value of a key; None if it has none, which may be why the job failed."""
    try:
        check_interpolations(composed)
        return OmegaConf.select(composed, key)
    except (AttributeError, UserError, OmegaConfBaseException):
        return None  # AttributeError: the group of the key is missing


def finish_multirun(jobs: Sequence[JobStatus], broken: str = "") -> list[ComparedStudy]:
    """Compare and return the studies that a multirun trained, then report its failed jobs.

    Args:
        jobs: status of all jobs; empty after a single run, for which nothing is done.
        broken: why jobs are missing if the launcher failed; otherwise empty.

    Raises:
        UserError: all failed jobs failed because of mistakes of the user, or the runs cannot be
            compared.
        RunError: a job failed for another reason, or the launcher failed.
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
            f"The launcher failed ({broken}). Runs that had not started were not trained; the "
            "same command resumes them."
        )
    if problems:
        only_mistakes = all(job.failure == 2 for job in failed) and not broken
        raise (UserError if only_mistakes else RunError)("\n".join(problems))
    return compared


def describe_failures(jobs: Sequence[JobStatus]) -> str:
    """Name the jobs that failed, grouped by the reason.

    Args:
        jobs: status of all jobs of a multirun, in order; at least one job failed.
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
