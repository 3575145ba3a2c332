"""``predict``: apply a trained network to images."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.inference.predict import predict_to_file


def run(config: Config, _arm: Arm) -> None:
    """Predict images with a trained network, to a file."""
    predict_to_file(config)
