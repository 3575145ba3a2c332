"""``evaluate``: evaluate a trained model on another dataset."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.inference.external_validation.evaluate import evaluate_model


def run(config: Config, _arm: Arm) -> None:
    """Evaluate a trained model on a dataset that it was not trained on."""
    evaluate_model(config)
