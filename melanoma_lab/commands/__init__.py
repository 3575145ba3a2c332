"""The commands of the command line, a module each with a function ``run``."""

from __future__ import annotations

from importlib import import_module

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import show_loading


def run_command(config: Config, arm: Arm) -> None:
    """Run the command that ``config.task`` names; its module is imported only now.

    A module that has something to say or to check before its imports of seconds does those itself.
    """
    with show_loading():
        module = import_module(f"melanoma_lab.commands.{config.task.value}")
    module.run(config, arm)
