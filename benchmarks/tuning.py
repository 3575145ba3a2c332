"""What the lab adds to a trial of a search, and what a trial leaves in memory.

    python benchmarks/tuning.py --trials 50

Searches the learning rate of a small network on small synthetic images. Prints, for a trial after
the first ten, the seconds that go neither into building the network nor into fitting or applying
it, and the memory that it leaves behind.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from memory import resident
from multirun import Seconds, now, timed

import melanoma_lab as lab
from melanoma_lab.tuning import search_messages

HERE = Path(__file__).resolve().parent
#: Trials that are not counted: caches fill.
WARM_UP = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--tuner", default="random", choices=["random", "bayesian"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        search(options.tuner, options.trials)
        os.chdir(HERE)


def search(tuner: str, trials: int) -> None:
    """Search, and print what a trial cost.

    Args:
        tuner: the algorithm.
        trials: how many.
    """
    parts: defaultdict[str, Seconds] = defaultdict(lambda: np.zeros(2))
    seen: list[tuple[Seconds, float]] = []
    said = search_messages.SearchProgress.ended

    def ended(self: search_messages.SearchProgress, trial: object) -> None:
        said(self, trial)  # type: ignore[arg-type]
        gc.collect()
        seen.append((now() - sum(parts.values(), np.zeros(2)), resident()))

    search_messages.SearchProgress.ended = ended  # type: ignore[method-assign]
    with timed(parts, ("build network", "fit", "evaluation")):
        lab.tune(
            *("dataset.lesions=110", "dataset.image_size=16", "architecture.filters=[4,8,8]"),
            *("training.epochs=1", "training.batch_size=64", "training.threads=2"),
            *(f"tuner={tuner}", f"tuner.max_trials={trials}", "cache=cache"),
            verbose=False,
        )
    (first, before), (last, after) = seen[WARM_UP - 1], seen[-1]
    counted = len(seen) - WARM_UP
    wall, processor = (last - first) / counted
    print(f"a trial of tuner={tuner}, beside building, fitting and applying the network:")
    print(f"  {wall:.2f} s, {processor:.2f} s of the processor")
    print(f"  {(after - before) / counted:.2f} MB left behind")


if __name__ == "__main__":
    main()
