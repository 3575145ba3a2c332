"""``export``: write a trained network in other formats."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.inference.export.export_network import export_network


def run(config: Config, _arm: Arm) -> None:
    """Write a trained network in formats that other programs read."""
    export_network(config)
