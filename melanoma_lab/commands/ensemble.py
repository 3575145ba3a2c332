"""``ensemble``: average the predictions of an arm's finished runs."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_loading
from melanoma_lab.tracking.run_reader import refuse_unknown_study


def run(config: Config, _arm: Arm) -> None:
    """Make ensembles of the finished runs of an arm."""
    refuse_unknown_study(config.study, config.tracking.uri)
    with show_loading():
        from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles

    make_ensembles(config.study, arm=config.arm, size=config.members, tracked=config.tracking)
