"""Sweeps for tests: a table of trials from a few columns."""

import numpy as np
import pandas as pd

from melanoma_lab.tuning.sweep import Dimension, Sweep

RATE = Dimension("optimizer.learning_rate", "float", 1e-5, 1e-1, log=True)


def trials_of(scores, values, **columns):
    """A table of completed trials; ``columns`` replace what would be in them."""
    scores = np.asarray(scores, float)
    n = len(scores)
    table = {
        "trial": [f"{i:04d}" for i in range(n)],
        "number": np.arange(n),
        "status": ["completed"] * n,
        "score": scores,
        "scores": [[score] for score in scores],
        "epochs": np.full(n, 15),
        "steps": np.full(n, 300.0),
        "seconds": np.full(n, 60.0),
        "run_id": [f"run{i}" for i in range(n)],
        "reason": [""] * n,
        "rung": np.full(n, -1),
    }
    table |= {f"value/{key}": list(column) for key, column in values.items()}
    return pd.DataFrame(table | columns)


def sweep_of(dimensions, trials, **fields):
    """A sweep of val balanced accuracy over a table of trials."""
    words = {
        "study": "tuning",
        "name": "dropout",
        "command": "python -m melanoma_lab tune +experiment=dropout study=tuning",
        "objective": "val/balanced_accuracy",
        "higher_is_better": True,
        "algorithm": "random",
        "seed": 0,
        "budget": "40 trials of up to 15 epochs",
        "data": {"dataset": "isic9_verified", "protocol": "grouped"},
        "next_command": "python -m melanoma_lab -m +experiment=dropout,tuned seed=1,2,3",
    }
    return Sweep(dimensions=tuple(dimensions), trials=trials, **(words | fields))
