"""The best score after each trial of a sweep, and the best trials."""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from melanoma_lab.tuning.sweep import Sweep

#: The maximum number of trials that are drawn in blue among parallel coordinates.
N_BLUE: Final = 30


def track_best(sweep: Sweep) -> pd.DataFrame:
    """Return the best score after each trial, in the order in which trials began.

    Args:
        sweep: the sweep, with any number of trials.

    Returns:
        A row for each trial, whatever its status, with the columns number, score (float; NaN if it
        has none) and best (float; the best score of this and all earlier trials, NaN before the
        first score).
    """
    trials = sweep.trials.sort_values("number", ignore_index=True)
    scored = trials["number"].isin(sweep.scored["number"])
    scores = trials["score"].astype(float).where(scored)
    best = scores.ffill().cummax() if sweep.higher_is_better else scores.ffill().cummin()
    return pd.DataFrame({"number": trials["number"], "score": scores, "best": best})


def select_best_trials(sweep: Sweep, trials: pd.DataFrame) -> pd.DataFrame:
    """Select the best tenth of some trials: at least three if there are, at most ``N_BLUE``.

    Args:
        sweep: the sweep.
        trials: rows of its table, all with a score.

    Returns:
        The rows of the best trials, the best first; ties in the order in which trials began.
    """
    ranked = trials.sort_values(
        ["score", "number"], ascending=[not sweep.higher_is_better, True], kind="stable"
    )
    return ranked.head(min(N_BLUE, max(3, math.ceil(len(ranked) / 10))))
