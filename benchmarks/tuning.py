"""What the lab adds to a trial of a search, and what a trial leaves in memory.

    python benchmarks/tuning.py --trials 50

Searches the learning rate of a small network on small synthetic images. Prints, for a trial after
the first ten, the processor seconds that go neither into building the network nor into fitting or
applying it, and the memory that it leaves behind.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from collections import defaultdict
from pathlib import Path

from fixed_cost import GROWS, PARTS, processor_seconds, watch

import melanoma_lab as lab
from melanoma_lab.tuning import search_messages
from tests.support.memory import resident

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
    spent: defaultdict[str, float] = defaultdict(float)
    seen: list[tuple[float, float]] = []
    said = search_messages.SearchProgress.show_end

    def ended(self: search_messages.SearchProgress, trial: object) -> None:
        said(self, trial)  # type: ignore[arg-type]
        gc.collect()
        seen.append((processor_seconds() - sum(spent.values()), resident()))

    search_messages.SearchProgress.show_end = ended  # type: ignore[method-assign]
    for part in GROWS:
        for name in PARTS[part]:
            watch(name, part, spent)
    lab.tune(
        *("dataset.lesions=110", "dataset.image_size=16", "architecture.filters=[4,8,8]"),
        *("training.epochs=1", "training.batch_size=64", "training.threads=2"),
        *(f"tuner={tuner}", f"tuner.max_trials={trials}", "cache=cache"),
        verbose=False,
    )
    (first, before), (last, after) = seen[WARM_UP - 1], seen[-1]
    counted = len(seen) - WARM_UP
    print(f"a trial of tuner={tuner}, beside building, fitting and applying the network:")
    print(f"  {(last - first) / counted:.2f} s of the processor")
    print(f"  {(after - before) / counted:.2f} MB left behind")


if __name__ == "__main__":
    main()
