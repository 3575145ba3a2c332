"""A compared study as a user of Python takes it: tables, verdicts, and where the report lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from melanoma_lab.comparison.compare import Comparison


@dataclass(frozen=True)
class ComparedStudy:
    """A study, compared and reported.

    Attributes:
        study: its name.
        metric: the one that gives the verdicts.
        warnings: what a reader must know first, the gravest first.
        report: the page to open; ``report.md`` and ``comparison.json`` lie beside it.
        comparison: everything, as objects.
    """

    study: str
    metric: str
    warnings: tuple[str, ...]
    report: Path
    comparison: Comparison = field(repr=False)

    @property
    def verdicts(self) -> dict[str, str]:
        """Arm -> ``helps``, ``hurts``, ``no evidence`` or ``too few runs``."""
        return {entry.arm: entry.verdict for entry in self.comparison.of_metric(self.metric)}

    @property
    def table(self) -> pd.DataFrame:
        """Every difference between an arm and its reference, a row each; NaN where undefined.

        Columns: arm, reference, metric, n_pairs, difference, ci_low, ci_high, p, p_holm, verdict.
        """
        columns = "arm reference metric n_pairs difference ci_low ci_high p p_holm verdict"
        rows = [
            asdict(entry)
            | {"difference": entry.summary.mean}
            | {"ci_low": entry.summary.ci_low, "ci_high": entry.summary.ci_high}
            for entry in self.comparison.differences
        ]
        return pd.DataFrame(rows, columns=columns.split())

    @property
    def arms(self) -> pd.DataFrame:
        """What every arm came to, a row for each arm and metric.

        Columns: arm, metric, n_runs, mean, sd, ci_low, ci_high; NaN where undefined.
        """
        rows: list[Mapping[str, object]] = [
            {"arm": arm.name, "metric": metric, "n_runs": len(arm.runs), **asdict(summary)}
            for arm in self.comparison.arms.values()
            for metric, summary in arm.metrics.items()
        ]
        return pd.DataFrame(rows)
