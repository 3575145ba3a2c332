"""Hydra's check of a multirun's jobs, done once for those that differ in their seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from melanoma_lab.config.arm import check_jobs_distinct

#: What a job can be composed with if it can be without.
_A_SEED = re.compile(r"seed=\d{1,9}")


@contextmanager
def validate_seeds_once() -> Iterator[None]:
    """Inside the block, Hydra's basic sweeper checks jobs that differ in their seeds as one.

    It also refuses jobs that a study could not tell apart.

    It composes all jobs before the first begins, so that a mistake in one of them shows then, and
    each again as it begins: where a study has finished this would be half of the time. A sweeper of
    the lab's own could do without; but those Hydra takes only from a package ``hydra_plugins``.
    """
    check = BasicSweeper.validate_batch_is_legal

    def check_different(self: BasicSweeper, batch: Sequence[Sequence[str]]) -> None:
        check_jobs_distinct(batch)
        check(self, drop_seed_repeats(batch))

    BasicSweeper.validate_batch_is_legal = check_different  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        BasicSweeper.validate_batch_is_legal = check  # type: ignore[method-assign]


def drop_seed_repeats(batch: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Of jobs that are the same but for their seeds, the last.

    Args:
        batch: the overrides of each job.
    """
    without = {tuple(w for w in job if not _A_SEED.fullmatch(w)): job for job in batch}
    return list(without.values())
