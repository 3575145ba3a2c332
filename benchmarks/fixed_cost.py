"""What a run costs beside fit, inference and building the network: processor seconds by part.

    python benchmarks/fixed_cost.py
    python benchmarks/fixed_cost.py +experiment=majority

Trains the arm (default: compact, one epoch) on ``synthetic`` at its default size in one process,
once to warm up and ``--rounds`` times to measure, and prints the smallest of each part. Processor
seconds of child processes count; composing the configuration does not. Processors differ: beside
the parts stand the seconds of ten million additions in Python.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import chdir
from typing import Any

from hydra import compose, initialize_config_dir

from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import parse_arm
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.validation import validate_config

#: Part -> its functions. A part has what its functions cost without those of other parts.
PARTS = {
    "preparing images": ["melanoma_lab.runs.steps.prepare_data"],
    "balancing": ["melanoma_lab.runs.steps.balance"],
    "connecting, tags": [
        "melanoma_lab.runs.run_spec.RunSpec.build_tags",
        "melanoma_lab.tracking.tracker.Tracker._begin",
        "melanoma_lab.tracking.tracker._connect",
    ],
    "building the network": ["melanoma_lab.runs.steps.build_setup"],
    "fit and inference": [
        "melanoma_lab.runs.steps.fit_with_checkpoints",
        "melanoma_lab.runs.steps.fit_trivial_classifier",
    ],
    "metrics": [
        "melanoma_lab.runs.run_report.compare_with_chance",
        "melanoma_lab.runs.run_report.evaluate_training",
    ],
    "figures": [
        "melanoma_lab.runs.run_report.save_run_figures",
        "melanoma_lab.reports.error_analysis.draw_surest_decisions",
        "melanoma_lab.reports.error_analysis.save_png",
    ],
    "Grad-CAM": ["melanoma_lab.reports.error_analysis.explain_images"],
    "mistakes page": ["melanoma_lab.runs.run_report.write_error_analysis"],
    "model card": ["melanoma_lab.runs.run_report.write_model_card"],
    "what images look like": ["melanoma_lab.runs.run_report._build_model_files"],
    "saving the network": ["melanoma_lab.tracking.tracker.Tracker.log_network"],
    "sending": ["melanoma_lab.tracking.tracker.Tracker._end"],
}
#: What is no fixed cost: it grows with the network, the images and the epochs.
GROWS = ("building the network", "fit and inference")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", default=["+experiment=compact"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    importlib.import_module("melanoma_lab.runs.run_report")
    for part, functions in PARTS.items():
        for name in functions:
            watch(name, part, spent)
    rounds = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for seed in range(options.rounds + 1):
            spent.clear()
            whole = train([*options.overrides, "training.epochs=1", f"seed={seed}"])
            rounds.append(dict(spent) | {"all": whole})
    rounds = rounds[1:]
    parts = {part: min(r.get(part, 0.0) for r in rounds) for part in PARTS}
    rest = min(r["all"] - sum(r.get(part, 0.0) for part in PARTS) for r in rounds)
    fixed = min(r["all"] - sum(r.get(part, 0.0) for part in GROWS) for r in rounds)
    for part, seconds in (parts | {"the rest": rest}).items():
        print(f"{part:24} {seconds:6.2f}")
    print(f"{'beside ' + ' and '.join(GROWS):24} {fixed:6.2f}")
    print(f"{'ten million additions':24} {min(additions() for _ in range(3)):6.2f}")


def train(overrides: list[str]) -> float:
    """Train one arm; return its processor seconds."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = validate_config(compose("config", overrides))
    before = processor_seconds()
    train_arm(config, parse_arm(overrides))
    return processor_seconds() - before


def watch(name: str, part: str, spent: dict[str, float]) -> None:
    """Let a function add what it costs to its part, and take it from the part that calls it."""
    path, _, attribute = name.rpartition(".")
    try:
        owner: Any = importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, class_name = path.rpartition(".")
        owner = getattr(importlib.import_module(module), class_name)
    function: Callable[..., Any] = getattr(owner, attribute)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        before, inner = processor_seconds(), sum(spent.values())
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += processor_seconds() - before - (sum(spent.values()) - inner)

    setattr(owner, attribute, watched)


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def additions() -> float:
    """Processor seconds of ten million additions: how fast this machine is just now."""
    before, total = time.process_time(), 0
    for number in range(10_000_000):
        total += number
    return time.process_time() - before


if __name__ == "__main__":
    main()
