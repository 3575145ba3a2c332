"""``tune``: search better hyperparameters for an arm."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_loading


def run(config: Config, arm: Arm) -> None:
    """Search better hyperparameters for one arm."""
    from melanoma_lab.tuning.plan import parse_command, plan_search

    plan = plan_search(config, arm, parse_command())  # mistakes show before anything is loaded
    if plan.role is not None and not plan.role.is_chief:
        with show_loading():
            from melanoma_lab.tuning.distributed.run_worker import run_worker

        run_worker(plan, plan.role)
        return
    with show_loading():
        from melanoma_lab.tuning.tune import tune_arm

    tune_arm(plan)
