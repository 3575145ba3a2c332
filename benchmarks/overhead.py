"""What the lab costs around Keras: side by side with a bare ``model.fit`` script.

    python benchmarks/overhead.py --root ../shared/data/isic9

Both train the course project's network on the same images, in turn, ``--rounds`` times, the decode
cache being warm. Prints, for every round and in the median: the ratio of the fits, the seconds from
launch to the first training step, and the seconds around fit and inference.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from hydra import compose, initialize_config_dir

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.validation import validate_config
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.training.hardware import count_available_threads

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the nine-class ISIC folder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--augmentation", default="none", help="of the lab's side only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        overrides = [
            "+experiment=baseline",
            "dataset=isic9",
            "dataset.conflicts=keep",
            f"dataset.root={Path(options.root).resolve()}",
            f"training.epochs={options.epochs}",
            f"training.precision={options.precision}",
            f"augmentation={options.augmentation}",
            f"cache={folder / 'cache'}",
        ]
        arrays(folder, overrides)
        rounds = []
        for _ in range(options.rounds):
            plain = bare(folder, options)
            rounds.append(compare(lab(folder, overrides), plain))
            print({name: round(value, 3) for name, value in rounds[-1].items()}, flush=True)
        print("median of", options.rounds)
        for name in rounds[0]:
            print(f"  {name:32} {statistics.median(r[name] for r in rounds):8.3f}")


def arrays(folder: Path, overrides: list[str]) -> None:
    """Write what the bare script loads; the lab's cache is warm from then on."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = validate_config(compose("config", overrides))
    data = prepare_data(config, cache=folder / "cache", threads=count_available_threads())
    for split in ("train", "val"):
        positions = data.select_split(split)
        np.save(folder / f"{split}.npy", data.pixels[data.rows[positions]])
        np.save(folder / f"{split}_y.npy", data.labels[positions])
    np.save(folder / "everything.npy", data.pixels[data.rows])


def bare(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run of the bare script."""
    command = [sys.executable, str(HERE / "bare_fit.py"), str(folder), str(options.epochs), "32"]
    command += [str(count_available_threads()), options.precision]
    launched = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.time() - launched
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"launched": launched, "wall": wall}


def lab(folder: Path, overrides: list[str]) -> dict[str, float]:
    """One run of the lab; its moments are read from what it tracked."""
    launched = time.time()
    subprocess.run(
        [sys.executable, "-m", "melanoma_lab", *overrides],
        check=True,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    wall = time.time() - launched
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name("ablation")
    run = client.search_runs([experiment.experiment_id], max_results=1)[0]
    first = client.get_metric_history(run.info.run_id, "epoch/seconds")[0]
    metrics = run.data.metrics
    return {
        "launched": launched,
        "wall": wall,
        "first_step": first.timestamp / 1000 - first.value,
        "fit_seconds": metrics["fit_seconds"],
        "images": metrics["optimizer_steps"] * 32,
    }


def compare(ours: dict[str, float], plain: dict[str, float]) -> dict[str, float]:
    """Compute the results of one round."""
    fit, bare_fit = ours["fit_seconds"], plain["fit_seconds"]
    return {
        "bare fit, s": bare_fit,
        "lab fit, s": fit,
        "fit, lab / bare": fit / bare_fit,
        "images/s, lab / bare": (ours["images"] / fit) / (plain["images"] / bare_fit),
        "bare, to first step, s": plain["first_step"] - plain["launched"],
        "lab, to first step, s": ours["first_step"] - ours["launched"],
        "to first step, lab - bare, s": (ours["first_step"] - ours["launched"])
        - (plain["first_step"] - plain["launched"]),
        # The bare script predicts every image once, as the lab does.
        "around fit, lab - bare, s": (ours["wall"] - fit) - (plain["wall"] - bare_fit),
        "whole, lab / bare": ours["wall"] / plain["wall"],
    }


if __name__ == "__main__":
    main()
