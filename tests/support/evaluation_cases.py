"""Predictions that the tests of the evaluation share: drawn by hypothesis, or from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from numpy.typing import NDArray

from melanoma_lab.evaluation import predictions

Case = tuple[NDArray[np.int64], NDArray[np.float64]]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def random_case(n: int, k: int, seed: int, signal: float = 1.0, grid: int | None = None) -> Case:
    """Labels and scores that know them the better, the larger signal is.

    With a grid the scores are multiples of 1 / grid, so that ties are common.
    """
    rng = np.random.default_rng(seed)
    y_true = rng.integers(k, size=n)
    if grid is not None:
        return y_true, rng.multinomial(grid, np.full(k, 1 / k), size=n) / grid
    return y_true, softmax(rng.normal(size=(n, k)) + signal * np.eye(k)[y_true])


@st.composite
def cases(draw: st.DrawFn, min_size: int = 1) -> Case:
    """2 to 6 classes, some of them often absent, with and without ties."""
    k = draw(st.integers(2, 6))
    n = draw(st.integers(min_size, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    grid = draw(st.sampled_from([None, 2, 10]))
    return random_case(n, k, seed, signal=draw(st.sampled_from([0.0, 2.0])), grid=grid)


def table_of(
    case: Case, split: str = "train", slugs: tuple[str, ...] | None = None
) -> pd.DataFrame:
    """One split as a predictions table; its image ids start with the split's name."""
    y_true, y_score = case
    ids = [f"{split}/{i}.jpg" for i in range(len(y_true))]
    return predictions.build_predictions(
        image_ids=ids,
        groups=ids,
        splits=[split] * len(ids),
        labels=y_true,
        probabilities=y_score,
        slugs=slugs or tuple(f"class_{k}" for k in range(y_score.shape[1])),
    ).table


def split_of(y_true: NDArray[np.int64], y_score: NDArray[np.float64], groups: Any = None):
    """Arrays as the predictions of a split, not rounded to float32 as a table would have them."""
    groups = np.arange(len(y_true)) if groups is None else groups
    ids = np.array([f"{i}.jpg" for i in range(len(y_true))], dtype=object)
    slugs = tuple(f"class_{k}" for k in range(y_score.shape[1]))
    return predictions.SplitPredictions(
        "test", slugs, ids, y_true, y_score, groups.astype(str), groups.astype(np.int64)
    )


def split_arrays(table: pd.DataFrame, split: str) -> Case:
    """The labels and scores of a split of a predictions table."""
    found = predictions.Predictions(table).split(split)
    return found.y_true, found.y_score
