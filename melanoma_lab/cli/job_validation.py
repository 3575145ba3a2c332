"""Let Hydra validate only one of several jobs that differ only in their seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from melanoma_lab.config.arm import check_jobs_distinct

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
    """Keep the last of several jobs that differ only in their seeds.

    Args:
        batch: overrides of each job.

    Returns:
        Overrides of the jobs to validate.
    """
    by_rest = {tuple(w for w in job if not _SEED.fullmatch(w)): job for job in batch}
    return list(by_rest.values())
