"""The result of a comparison for users of Python: tables, verdicts and the report's path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from melanoma_lab.comparison.compare import Comparison


@dataclass(frozen=True)
class ComparedStudy:
    """The result of comparing the arms of a study.

    Attributes:
        study: the name of the study.
        metric: the metric that decides about the verdicts.
        warnings: sentences that warn the reader, the most serious first.
        report: the path of the report's page; ``report.md`` and ``comparison.json`` are in the same
            folder.
        comparison: the complete comparison.
    """

    study: str
    metric: str
    warnings: tuple[str, ...]
    report: Path
    comparison: Comparison = field(repr=False)

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdicts, arm -> ``helps``, ``hurts``, ``no evidence`` or ``too few runs``."""
        return {entry.arm: entry.verdict for entry in self.comparison.of_metric(self.metric)}

    @property
    def table(self) -> pd.DataFrame:
        """The differences between arms and their references, a row each; NaN if undefined.

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
        """The metrics of all arms, a row for each arm and metric.

        Columns: arm, metric, n_runs, mean, sd, ci_low, ci_high; NaN if undefined.
        """
        rows: list[Mapping[str, object]] = [
            {"arm": arm.name, "metric": metric, "n_runs": len(arm.runs), **asdict(summary)}
            for arm in self.comparison.arms.values()
            for metric, summary in arm.metrics.items()
        ]
        return pd.DataFrame(rows)
