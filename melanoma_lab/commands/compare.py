"""``compare``: compare the arms of a study."""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_loading
from melanoma_lab.tracking.run_reader import refuse_unknown_study


def run(config: Config, _arm: Arm) -> None:
    """Compare the arms of a study and write its report."""
    refuse_unknown_study(config.study, config.tracking.uri)
    with show_loading():
        from melanoma_lab.comparison.study_report import report_study

    report_study(
        config.study,
        reference=config.reference,
        metric=config.metric,
        tracked=config.tracking,
        folder=Path("experiments"),
    )
