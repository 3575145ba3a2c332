"""Sweeps for tests: a table of trials from a few columns."""

import numpy as np
import pandas as pd

from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.sweep import Sweep

RATE = HyperParameter("optimizer.learning_rate", "float", 1e-5, 1e-1, log=True)


def trials_of(y, values, **columns):
    """A table of completed trials; ``columns`` replace what would be in them."""
    y = np.asarray(y, float)
    n = len(y)
    table = {
        "trial": [f"{i:04d}" for i in range(n)],
        "number": np.arange(n),
        "status": ["completed"] * n,
        "score": y,
        "scores": [[score] for score in y],
        "epochs": np.full(n, 15),
        "steps": np.full(n, 300.0),
        "seconds": np.full(n, 60.0),
        "run_id": [f"run{i}" for i in range(n)],
        "reason": [""] * n,
        "rung": np.full(n, -1),
    }
    table |= {f"value/{key}": list(column) for key, column in values.items()}
    return pd.DataFrame(table | columns)


def sweep_of(searched, trials, **fields):
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
    return Sweep(searched=tuple(searched), trials=trials, **(words | fields))


def realistic(n=60, seed=0, *, hyperband=False):
    """A sweep as a user has one: conditions, lists, null, two seeds a trial, failures."""
    rng = np.random.default_rng(seed)
    lists = ([0.1, 0.1, 0.2], [0.25, 0.25, 0.5], None)
    rate = 10 ** rng.uniform(-5, -1, n)
    optimizer = rng.choice(["adam", "sgd", "rmsprop"], n)
    momentum = np.where(optimizer == "sgd", rng.uniform(0, 0.99, n), np.nan)
    rates = rng.integers(0, 3, n)
    values = {
        "optimizer.learning_rate": rate,
        "optimizer": optimizer,
        "optimizer.momentum": momentum,
        "regularisation.rates": [lists[i] for i in rates],
        "training.batch_size": 2 ** rng.integers(3, 7, n),
        "augmentation.horizontal_flip": rng.random(n) < 0.5,
        "architecture.dense": np.full(n, 128),
    }
    place = np.log10(rate) + 3.2
    score = 0.45 - 0.05 * place**2 + 0.04 * (rates == 1) + 0.012 * rng.normal(size=n)
    score = np.maximum(score, 0.125 + 0.004 * rng.random(n))
    noise = 0.01 * rng.normal(size=(n, 2))
    scores = score[:, None] + noise - noise.mean(axis=1, keepdims=True)
    rung = np.full(n, -1)
    epochs = np.full(n, 15)
    if hyperband:
        rung = np.repeat([0, 1, 2], [n - n // 3 - n // 9, n // 3, n // 9])
        epochs = np.array([2, 5, 15])[rung]
        score += 0.05 * rung
        scores += 0.05 * rung[:, None]
    status = np.array(["completed"] * n, object)
    reason = np.array([""] * n, object)
    failed = rng.choice(n, n // 12, replace=False)
    status[failed] = "failed"
    reason[failed] = "The loss was NaN in epoch 3: a smaller learning rate may help."
    status[failed[:1]], reason[failed[:1]] = "killed", "interrupted"
    score[failed] = np.nan
    trials = trials_of(
        score,
        values,
        scores=[[] if s == "failed" else list(x) for s, x in zip(status, scores, strict=True)],
        status=status,
        reason=reason,
        rung=rung,
        epochs=epochs,
        steps=epochs * 60.0,
        seconds=epochs * rng.uniform(7, 9, n),
    )
    searched = [
        RATE,
        HyperParameter("optimizer", "choice", choices=("adam", "sgd", "rmsprop")),
        HyperParameter("optimizer.momentum", "float", 0.0, 0.99, when={"optimizer": ("sgd",)}),
        HyperParameter(
            "regularisation.rates", "choice", choices=tuple(map(format_override_value, lists))
        ),
        HyperParameter("training.batch_size", "int", 8, 64, log=True),
        HyperParameter("augmentation.horizontal_flip", "bool", choices=("false", "true")),
        HyperParameter("architecture.dense", "int", 128, 128),
    ]
    untuned = {"optimizer.learning_rate": 1e-3, "optimizer": "adam", "training.batch_size": 32}
    return sweep_of(
        searched,
        trials,
        untuned=untuned,
        repetitions=("seed 0", "seed 1"),
        algorithm="hyperband" if hyperband else "random",
    )
