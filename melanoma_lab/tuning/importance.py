"""The importance of a sweep's hyperparameters, and whether the trials suffice to measure it.

As in Weights & Biases and in Optuna's fANOVA, a random forest learns the score from the
hyperparameters. Those two report how often and how well the forest splits on each hyperparameter,
which is never zero and ranks noise too. Here importance is measured on trials that the forest has
not seen (permutation importance: Breiman 2001, "Random forests"; Fisher, Rudin and Dominici 2019,
"All models are wrong, but many are useful"), and compared with that of shuffled copies of the
hyperparameters, which cannot matter (Kursa and Rudnicki 2010, "Feature selection with the Boruta
package").
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

from melanoma_lab.tuning.search_space import HyperParameter, label_value
from melanoma_lab.tuning.sweep import Sweep

#: With fewer trials there is no ranking: a fifth of them would be too few to measure anything on.
MIN_TRIALS: Final = 20
#: Folds of the cross-validation, its repetitions, and trees of each forest.
FOLDS: Final = 5
REPEATS: Final = 10
TREES: Final = 30


@dataclass(frozen=True)
class Effect:
    """The effect of one hyperparameter on the score.

    Attributes:
        share: the share of the variance of held-out trials' scores that it accounts for, alone and
            together with others: half the rise of the forest's squared error when its values are
            shuffled, divided by the variance (Gregorutti, Michel and Saint-Pierre 2017,
            "Correlation and variable importance in random forests", proposition 1); the mean over
            repetitions. Shares of hyperparameters that act together overlap.
        matters: whether the share is greater than that of any shuffled copy in any repetition.
    """

    key: str
    share: float
    matters: bool


@dataclass(frozen=True)
class Importance:
    """The importance of all hyperparameters of a sweep.

    Attributes:
        effects: the effects, the greatest share first; empty if there is no ranking.
        reason: a sentence that says why there is no ranking; empty if there is one.
        explained: the share of the variance of held-out trials' scores that the forest explains
            (cross-validated R squared of the ranks); NaN if no forest was fitted. 0 or less means
            that it explains nothing.
        chance: the greatest share of any shuffled copy; NaN if no forest was fitted.
        rung: the Hyperband rung of these trials; -1 if the sweep has no rungs.
        constant: the searched keys that did not vary among these trials.
    """

    effects: tuple[Effect, ...]
    reason: str
    explained: float
    chance: float
    trials: int
    rung: int
    constant: tuple[str, ...]


def rank_hyperparameters(sweep: Sweep) -> Importance:
    """Measure which hyperparameters a sweep's scores depend on; deterministic.

    Only trials of one budget are compared: those of the Hyperband rung with the most scored trials
    (the highest of such rungs). Scores are replaced by their ranks, so that a few very bad trials
    do not dominate. A conditional hyperparameter is shuffled only among the trials that use it.
    """
    trials, rung = select_comparable_trials(sweep)
    encoded = {e.key: encode_values(sweep, e, trials) for e in sweep.searched}
    known = {key: column[~np.isnan(column)] for key, column in encoded.items()}
    varying = {k: encoded[k] for k, values in known.items() if values.size and np.ptp(values) > 0}
    constant = tuple(key for key in encoded if key not in varying)
    ranks = np.asarray(trials["score"].rank(), np.float64)
    reason = _explain_no_ranking(trials, rung, list(varying))
    if reason:
        return Importance((), reason, math.nan, math.nan, len(trials), rung, constant)
    columns = np.column_stack(list(varying.values())).astype(np.float64)
    explained, shares, chance = _cross_validate(columns, ranks)
    if explained <= 0:
        reason = (
            f"The hyperparameters of the {len(trials)} trials do not predict the score of a "
            "held-out trial: a random forest does no better than the mean score. Either none of "
            "them matters within its range, or there are too few trials to show it."
        )
    effects = sorted(
        (Effect(k, float(x), bool(x > chance)) for k, x in zip(varying, shares, strict=True)),
        key=lambda effect: -effect.share,
    )
    ranking = () if reason else tuple(effects)
    return Importance(ranking, reason, explained, chance, len(trials), rung, constant)


def select_comparable_trials(sweep: Sweep) -> tuple[pd.DataFrame, int]:
    """Return the scored trials of one budget and their rung; -1 if there are no rungs or no scores.

    If there are several rungs, choose the one with the most trials, and the highest of such rungs.
    """
    scored = sweep.scored
    if scored.empty:
        return scored, -1
    counts = scored["rung"].value_counts()
    rung = int(counts.index[counts == counts.max()].max())
    return scored[scored["rung"] == rung], rung


def encode_values(sweep: Sweep, entry: HyperParameter, trials: pd.DataFrame) -> NDArray[np.float64]:
    """Return a hyperparameter's values as float64, shape (trials,); NaN if a trial does not use it.

    Values on a logarithmic scale become their decimal logarithms; choices become their index.
    """
    used = sweep.find_active(entry, trials)
    values = trials[f"value/{entry.key}"].where(used)
    if entry.is_range:
        numbers = pd.to_numeric(values).to_numpy(np.float64)
        return np.log10(numbers) if entry.log else numbers
    places = {name: float(i) for i, name in enumerate(entry.labels)}
    return np.array(
        [
            places[label_value(value)] if counts else math.nan
            for value, counts in zip(values, used, strict=True)
        ],
        np.float64,
    )


def _explain_no_ranking(trials: pd.DataFrame, rung: int, varying: Sequence[str]) -> str:
    """Return why hyperparameters cannot be ranked with these trials; empty if they can."""
    if len(trials) < MIN_TRIALS:
        trial = "trial with a score is" if len(trials) == 1 else "trials with a score are"
        where = " of one budget" if rung >= 0 else ""
        return (
            f"{len(trials)} {trial} too few to determine which hyperparameters mattered: at "
            f"least {MIN_TRIALS}{where} are needed."
        )
    if not varying:
        return "No hyperparameter varied among the trials."
    if trials["score"].min() == trials["score"].max():
        return "All trials have the same score."
    return ""


def _cross_validate(
    columns: NDArray[np.float64], ranks: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], float]:
    """Cross-validate a forest several times, and shuffle its columns among held-out trials.

    Args:
        columns: values of the hyperparameters; float64, shape (trials, hyperparameters), NaN if a
            trial does not use one.

    Returns:
        The share of the ranks' variance that the forest explains; the share that each
        hyperparameter accounts for, float64, shape (hyperparameters,); the greatest share of any
        shuffled copy.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    rng = np.random.default_rng(0)
    n_columns = columns.shape[1]
    errors = np.zeros(REPEATS)
    rises = np.zeros((REPEATS, 2 * n_columns))
    for repeat in range(REPEATS):
        both = np.hstack([columns, _shuffle_columns(columns, rng)])
        used = ~np.isnan(both)
        filled = _fill_gaps(both, rng)
        for train, test in KFold(FOLDS, shuffle=True, random_state=repeat).split(filled):
            forest = RandomForestRegressor(TREES, random_state=repeat)
            forest.fit(filled[train], ranks[train])
            errors[repeat] += np.square(forest.predict(filled[test]) - ranks[test]).sum()
            rises[repeat] += _measure_error_rises(
                forest, filled[test], used[test], ranks[test], repeat
            )
    variance = np.square(ranks - ranks.mean()).sum()
    shares = rises / (2 * variance)
    explained = float(1 - errors.mean() / variance)
    return explained, shares[:, :n_columns].mean(axis=0), float(shares[:, n_columns:].max())


def _shuffle_columns(columns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return each column's values in random order; each NaN stays in its place."""
    copies = columns.copy()
    for copy in copies.T:
        copy[~np.isnan(copy)] = rng.permutation(copy[~np.isnan(copy)])
    return copies


def _fill_gaps(columns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Replace NaN by values drawn from the same column.

    A constant, such as the median, would tell the forest the value of the key that decides whether
    this one is used.
    """
    filled = columns.copy()
    for column in filled.T:
        gaps = np.isnan(column)
        column[gaps] = rng.choice(column[~gaps], gaps.sum())
    return filled


def _measure_error_rises(
    forest: Any,
    columns: NDArray[np.float64],
    used: NDArray[np.bool_],
    ranks: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """Measure how much a forest's sum of squared errors rises when each column is shuffled.

    Args:
        columns: values without NaN; float64, shape (trials, columns).
        used: whether a trial uses a column's key; bool, shape (trials, columns). A column is
            shuffled only among the trials that use it.

    Returns:
        The rise for each column; float64, shape (columns,).
    """
    from sklearn.inspection import permutation_importance

    by_use: dict[bytes, list[int]] = defaultdict(list)  # columns that the same trials use
    for i, column in enumerate(used.T):
        by_use[column.tobytes()].append(i)
    rises = np.zeros(columns.shape[1])
    for alike in by_use.values():
        rows = used[:, alike[0]]
        if rows.sum() > 1:
            result = permutation_importance(
                forest,
                columns[rows],
                ranks[rows],
                scoring="neg_mean_squared_error",
                n_repeats=1,  # the caller repeats the whole cross-validation
                random_state=seed,
            )
            rises[alike] = result.importances_mean[alike] * rows.sum()
    return rises
