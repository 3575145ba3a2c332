"""How a sweep went: the best value so far, trial by trial."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pandas as pd

from melanoma_lab.tuning.sweep import Sweep

#: So many of the best trials stand out among parallel coordinates at most.
N_BLUE: Final = 30


def track_best(sweep: Sweep) -> pd.DataFrame:
    """The best score after every trial, in the order in which trials began.

    Returns:
        A row for each trial of whatever status with the columns number, score (NaN where it has
        none), best (float: of this and all earlier trials; NaN before the first score) and seconds
        (float: of all trials up to here, one after the other).
    """
    trials = sweep.trials.sort_values("number", ignore_index=True)
    scored = trials["number"].isin(sweep.scored["number"])
    scores = trials["score"].astype(float).where(scored)
    best = scores.ffill().cummax() if sweep.higher_is_better else scores.ffill().cummin()
    seconds = np.nancumsum(trials["seconds"].to_numpy(float))
    return pd.DataFrame(
        {"number": trials["number"], "score": scores, "best": best, "seconds": seconds}
    )


def select_best_trials(sweep: Sweep, trials: pd.DataFrame) -> pd.DataFrame:
    """The best tenth of some trials: at least three where there are, at most ``N_BLUE``.

    Args:
        sweep: that they are of.
        trials: rows of its table, all with a score.

    Returns:
        Their rows, the best first, of equal ones the earlier.
    """
    ranked = trials.sort_values(
        ["score", "number"], ascending=[not sweep.higher_is_better, True], kind="stable"
    )
    return ranked.head(min(N_BLUE, max(3, math.ceil(len(ranked) / 10))))
