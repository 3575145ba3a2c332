"""Searches as processes, for tests that interrupt them."""

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SMALL = (
    *("dataset=folder", "dataset.image_size=16", "training.batch_size=1", "training.threads=1"),
    *("architecture.filters=[4,8]", "architecture.dense_units=8"),
    "tuner.space={optimizer.learning_rate:{min:1e-4,max:1e-2,log:true}}",
)


def search_process(folder, tree, *more, environment=()):
    """Start a search of a tiny network in a folder with its own database and cache."""
    folder.mkdir(exist_ok=True)
    words = ["tune", *SMALL, f"dataset.root={tree}", f"cache={folder / 'cache'}", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "melanoma_lab", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_an_epoch(process, folder):
    """Wait until a process has kept the state of a trial that it is still training."""
    until, runs = time.monotonic() + 300, folder / "cache" / "runs"
    while time.monotonic() < until and process.poll() is None:
        for holder in runs.glob("*.holder"):
            try:
                says = holder.read_text()
            except OSError:
                continue  # gone
            kept = [*(runs / holder.stem).glob("*")]  # a note of the run, and then its state
            if says.startswith(f"Process {process.pid} ") and len(kept) > 1:
                return
        time.sleep(0.02)
    raise AssertionError(f"it trains nothing: {process.communicate()[0]}")
