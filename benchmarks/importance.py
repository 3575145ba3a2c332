"""How often a sweep's report names a hyperparameter that matters, and one that does not.

    python benchmarks/importance.py
    python benchmarks/importance.py --trials 20 --sweeps 10

Simulated sweeps of five hyperparameters drawn at random. In one half of them the scores are noise:
whatever is named is named wrongly. In the other a single one has an optimum inside its range, and
noise of half the scores' spread is added. Prints the shares of sweeps. A minute a processor for
twenty trials, longer for more.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.tuning.importance import rank_hyperparameters
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.sweep import Sweep

KEYS = ("a", "b", "c", "d", "e")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--sweeps", type=int, default=40)
    options = parser.parse_args()
    for n in options.trials:
        wrong = found = beside = 0
        for seed in range(options.sweeps):
            rng = np.random.default_rng(seed)
            values = rng.random((n, len(KEYS)))
            wrong += bool(named(rng.normal(size=n), values))
            optimum = -4 * (values[:, 0] - 0.6) ** 2 + 0.15 * rng.normal(size=n)
            said = named(optimum / np.std(optimum) + 0.5 * rng.normal(size=n), values)
            found += KEYS[0] in said
            beside += bool(said - {KEYS[0]})
        shares = (f"{count / options.sweeps:6.1%}" for count in (wrong, found, beside))
        print("{:3} trials  noise named{}  optimum found{}  noise beside it{}".format(n, *shares))


def named(scores: NDArray[np.float64], values: NDArray[np.float64]) -> set[str]:
    """Return the hyperparameters that matter according to a sweep's report."""
    n = len(scores)
    trials = pd.DataFrame(
        {
            "trial": [f"{i:04d}" for i in range(n)],
            "number": np.arange(n),
            "status": "completed",
            "score": scores,
            "scores": [[score] for score in scores],
            "epochs": 1,
            "steps": 1.0,
            "seconds": 1.0,
            "run_id": [f"run{i}" for i in range(n)],
            "reason": "",
            "rung": -1,
            **{f"value/{key}": column for key, column in zip(KEYS, values.T, strict=True)},
        }
    )
    sweep = Sweep(
        study="simulated",
        name="simulated",
        command="",
        objective="val/balanced_accuracy",
        higher_is_better=True,
        algorithm="random",
        searched=tuple(HyperParameter(key, "float", 0, 1) for key in KEYS),
        trials=trials,
        seed=0,
        budget="",
        data={},
        next_command="",
    )
    return {effect.key for effect in rank_hyperparameters(sweep).effects if effect.matters}


if __name__ == "__main__":
    main()
