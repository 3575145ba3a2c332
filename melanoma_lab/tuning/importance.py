"""Which hyperparameters mattered in a sweep, and whether the trials can tell at all.

As in Weights & Biases and in Optuna's fANOVA a random forest learns the score from the
hyperparameters. Those two report how often and how well the forest splits on each, which is never
nought and ranks noise too. Here a hyperparameter's importance is measured on trials that the forest
has not seen (permutation importance: Breiman 2001, "Random forests"; Fisher, Rudin and Dominici
2019, "All models are wrong, but many are useful") and held against copies of the hyperparameters
that were shuffled and therefore cannot matter (Kursa and Rudnicki 2010, "Feature selection with the
Boruta package").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.tuning.sweep import Dimension, Sweep, format_value

#: Fewer trials than this are not ranked: a fifth of them would be too few to measure anything on.
MIN_TRIALS: Final = 20
FOLDS: Final = 5
REPEATS: Final = 10
TREES: Final = 30


@dataclass(frozen=True)
class Effect:
    """What one hyperparameter did.

    Attributes:
        key: of the dimension.
        share: of the differences between held-out trials that it accounts for, alone and
            together with others: half the rise of the forest's squared error when it is shuffled
            among them, over their variance (Gregorutti, Michel and Saint-Pierre 2017,
            "Correlation and variable importance in random forests", proposition 1); mean over
            repetitions. Shares of hyperparameters that act together overlap.
        matters: whether that is more than any shuffled copy came to in any repetition.
    """

    key: str
    share: float
    matters: bool


@dataclass(frozen=True)
class Importance:
    """Which hyperparameters mattered.

    Attributes:
        effects: the greatest share first; empty where there is no ranking.
        reason: why there is none, a sentence; empty where there is one.
        explained: the share of the differences between held-out trials that the forest explains
            (R squared of the ranks, cross-validated); NaN where none was fitted. At most nought
            means: nothing.
        chance: the greatest share that a shuffled copy came to; NaN where none was fitted.
        trials: how many were used.
        rung: the one that they are of; -1 where the sweep has none.
        constant: keys of the dimensions that did not vary among them.
    """

    effects: tuple[Effect, ...]
    reason: str
    explained: float
    chance: float
    trials: int
    rung: int
    constant: tuple[str, ...]


def rank_hyperparameters(sweep: Sweep) -> Importance:
    """Measure which hyperparameters a sweep's scores depend on; the same trials, the same answer.

    Only trials of one budget are compared: of Hyperband's rungs the one with the most trials that
    have a score, of several the highest. Scores count by their ranks, so that a few trials that
    went very wrong do not decide. A dimension that depends on another is shuffled among the trials
    that have it alone.

    Args:
        sweep: with however many trials.
    """
    trials, rung = select_comparable_trials(sweep)
    encoded = {d.key: encode_values(sweep, d, trials) for d in sweep.dimensions}
    varying = {key: column for key, column in encoded.items() if _varies(column)}
    constant = tuple(key for key in encoded if key not in varying)
    ranks = np.asarray(trials["score"].rank(), np.float64)
    reason = _too_little(trials, rung, list(varying))
    if reason:
        return Importance((), reason, math.nan, math.nan, len(trials), rung, constant)
    columns = np.column_stack(list(varying.values())).astype(np.float64)
    explained, shares, chance = _measure(columns, ranks)
    if explained <= 0:
        reason = (
            f"From the hyperparameters of the {len(trials)} trials nothing can be said about the "
            "score of a trial that was held out: a forest does no better than their mean. Either "
            "none of them matters within its range, or the trials are too few to show it."
        )
    effects = sorted(
        (Effect(k, float(x), bool(x > chance)) for k, x in zip(varying, shares, strict=True)),
        key=lambda effect: -effect.share,
    )
    ranking = () if reason else tuple(effects)
    return Importance(ranking, reason, explained, chance, len(trials), rung, constant)


def select_comparable_trials(sweep: Sweep) -> tuple[pd.DataFrame, int]:
    """The trials with a score that had the same budget, and their rung (-1: there are none).

    Of several rungs the one with the most trials, of several such the highest.
    """
    scored = sweep.scored
    if scored.empty:
        return scored, -1
    counts = scored["rung"].value_counts()
    rung = int(counts.index[counts == counts.max()].max())
    return scored[scored["rung"] == rung], rung


def encode_values(sweep: Sweep, dimension: Dimension, trials: pd.DataFrame) -> NDArray[np.float64]:
    """A dimension's values as numbers: float64, shape (trials,), NaN where it does not count.

    Logarithms where the scale is logarithmic, places in the list of choices where there is one.

    Args:
        sweep: that the dimension is of.
        dimension: one of its dimensions.
        trials: rows of its table.
    """
    applies = pd.Series(sweep.applies(dimension), sweep.trials.index)[trials.index]
    values = trials[f"value/{dimension.key}"].where(applies.to_numpy())
    if dimension.is_number:
        numbers = pd.to_numeric(values).to_numpy(np.float64)
        return np.log10(numbers) if dimension.log else numbers
    places = {name: float(i) for i, name in enumerate(dimension.names)}
    return np.array(
        [
            places[format_value(value)] if counts else math.nan
            for value, counts in zip(values, applies, strict=True)
        ],
        np.float64,
    )


def _varies(column: NDArray[np.float64]) -> bool:
    known = column[~np.isnan(column)]
    return known.size > 0 and bool(np.ptp(known) > 0)


def _too_little(trials: pd.DataFrame, rung: int, varying: Sequence[str]) -> str:
    """Why trials cannot be ranked by, a sentence; empty where they can."""
    if len(trials) < MIN_TRIALS:
        trial = "trial with a score is" if len(trials) == 1 else "trials with a score are"
        where = " of one budget" if rung >= 0 else ""
        return (
            f"{len(trials)} {trial} too few to say which hyperparameters mattered: it takes "
            f"{MIN_TRIALS}{where}."
        )
    if not varying:
        return "No hyperparameter varied among the trials."
    if trials["score"].min() == trials["score"].max():
        return "All trials have the same score."
    return ""


def _measure(
    columns: NDArray[np.float64], ranks: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], float]:
    """Cross-validate a forest over and over and shuffle its columns where it has not learned.

    Args:
        columns: float64, shape (trials, dimensions); NaN where a dimension does not count.
        ranks: float64, shape (trials,).

    Returns:
        The share of the ranks' variance that is explained; of every dimension the share that its
        values account for, shape (dimensions,); the greatest share of any shuffled copy.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    rng = np.random.default_rng(0)
    dimensions = columns.shape[1]
    errors = np.zeros(REPEATS)
    rises = np.zeros((REPEATS, 2 * dimensions))
    for repeat in range(REPEATS):
        both = np.hstack([columns, _shuffled(columns, rng)])
        counts = ~np.isnan(both)
        filled = _filled(both, rng)
        for train, test in KFold(FOLDS, shuffle=True, random_state=repeat).split(filled):
            forest = RandomForestRegressor(TREES, random_state=repeat)
            forest.fit(filled[train], ranks[train])
            errors[repeat] += np.square(forest.predict(filled[test]) - ranks[test]).sum()
            rises[repeat] += _rises(forest, filled[test], counts[test], ranks[test], repeat)
    variance = np.square(ranks - ranks.mean()).sum()
    shares = rises / (2 * variance)
    explained = float(1 - errors.mean() / variance)
    return explained, shares[:, :dimensions].mean(axis=0), float(shares[:, dimensions:].max())


def _shuffled(columns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Each column's values in another order, NaN where they were."""
    copies = columns.copy()
    for copy in copies.T:
        copy[~np.isnan(copy)] = rng.permutation(copy[~np.isnan(copy)])
    return copies


def _filled(columns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Columns with values drawn from their own for NaN: a gap does not tell what its parent was.

    Any one value, such as the median, would tell it.
    """
    filled = columns.copy()
    for column in filled.T:
        gaps = np.isnan(column)
        column[gaps] = rng.choice(column[~gaps], gaps.sum())
    return filled


def _rises(
    forest: Any,
    columns: NDArray[np.float64],
    counts: NDArray[np.bool_],
    ranks: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """By how much the squared errors of a forest rise, in all, when each column is shuffled.

    Args:
        forest: fitted to other trials.
        columns: float64, shape (trials, columns).
        counts: bool, of the same shape: where a column's dimension counts; it is shuffled there.
        ranks: float64, shape (trials,).
        seed: of the shuffling.
    """
    from sklearn.inspection import permutation_importance

    together: dict[bytes, list[int]] = defaultdict(list)  # columns that count in the same trials
    for i, column in enumerate(counts.T):
        together[column.tobytes()].append(i)
    rises = np.zeros(columns.shape[1])
    for alike in together.values():
        rows = counts[:, alike[0]]
        if rows.sum() > 1:
            result = permutation_importance(
                forest,
                columns[rows],
                ranks[rows],
                scoring="neg_mean_squared_error",
                n_repeats=1,  # the cross-validation is repeated
                random_state=seed,
            )
            rises[alike] = result.importances_mean[alike] * rows.sum()
    return rises
