"""Texts about a sweep: values, ranges, scores, and cautions for the reader."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.core.formatting import format_count, format_metric, format_number, label_metric
from melanoma_lab.tuning.search_space import HyperParameter, label_choice, label_value
from melanoma_lab.tuning.sweep import Sweep, select_best_trials

NOT_USED = "not used"


def get_objective_metric(sweep: Sweep) -> str:
    """Return the name of the optimised metric without its split: ``balanced_accuracy``."""
    return re.sub(r"^val[/_]", "", sweep.objective)


def label_score(sweep: Sweep) -> str:
    """Return the label of a score: ``val balanced accuracy``."""
    return f"val {label_metric(get_objective_metric(sweep))}"


def format_score(sweep: Sweep, value: float) -> str:
    """Format a score: ``41.3 %`` or ``1.234``."""
    return format_metric(get_objective_metric(sweep), value)


def format_trial_value(entry: HyperParameter, content: object) -> str:
    """Format a value of a searched key, numbers of a range to four digits."""
    if entry.is_range and isinstance(content, int | float | np.number):
        return format_number(float(content))
    return label_value(content)


def format_used_values(sweep: Sweep, entry: HyperParameter, trials: pd.DataFrame) -> list[str]:
    """Format trials' values of a searched key; ``not used`` if its condition is false."""
    used = sweep.find_active(entry, trials)
    return [
        format_trial_value(entry, content) if counts else NOT_USED
        for content, counts in zip(trials[f"value/{entry.key}"], used, strict=True)
    ]


def describe_searched_values(entry: HyperParameter) -> str:
    """Describe a searched key's values: ``1e-5 to 0.1, log scale``; ``adam, sgd``."""
    if entry.is_range:
        text = f"{format_number(entry.low)} to {format_number(entry.high)}"
        text = format_number(entry.low) if entry.low == entry.high else text
        text += ", whole numbers" if entry.kind == "int" else ""
        text += ", log scale" if entry.log else ""
    else:
        text = ", ".join(entry.labels)
    conditions = " and ".join(
        f"{key} is {' or '.join(map(label_choice, choices))}" for key, choices in entry.when.items()
    )
    return f"{text}; if {conditions}" if conditions else text


def format_repetition_scores(sweep: Sweep, trial: pd.Series[Any]) -> str:
    """Format the scores of a trial's runs, such as ``seed 0: 51.0 %``; empty for a single run."""
    scores = list(trial["scores"])
    if len(scores) < 2:
        return ""
    values = [format_score(sweep, each) for each in scores]
    if len(sweep.repetitions) == len(scores):
        return ", ".join(
            f"{name}: {text}" for name, text in zip(sweep.repetitions, values, strict=True)
        )
    return ", ".join(values)


def summarize_search(sweep: Sweep) -> str:
    """Return a sentence about the best trial and its score."""
    best, n = sweep.best, len(sweep.scored)
    if best is None:
        return f"None of {len(sweep.trials)} trials has a score."
    seeds = format_repetition_scores(sweep, best)
    runs = f", the mean of {len(best['scores'])} runs ({seeds})" if seeds else ", a single run"
    rank = f"the best of {n} trials with a score" if n > 1 else "the only trial with a score"
    value = f"{format_score(sweep, best['score'])} {label_score(sweep)}{runs}"
    return f"Trial {best['number']}, {rank}: {value}."


def list_cautions(sweep: Sweep) -> list[str]:
    """Return sentences that warn the reader, the most serious first."""
    best, n = sweep.best, len(sweep.scored)
    found: list[str] = []
    if best is not None:
        found += [_warn_of_optimism(sweep, best, n), *_warn_of_spread(sweep, best)]
        found += _warn_of_range_ends(sweep, best) if n > 1 else []
    return [*found, *_warn_of_budgets(sweep, best), *_count_unfinished(sweep)]


def _warn_of_optimism(sweep: Sweep, best: pd.Series[Any], n: int) -> str:
    if n == 1:
        return (
            "The validation split also chose the epoch that was kept, so its score is optimistic. "
            "The test split was not used: the next command evaluates on it."
        )
    return (
        f"The validation split was searched over {n} trials and chose the best of them. Its "
        f"{format_score(sweep, best['score'])} is therefore optimistic, the more so the more "
        "trials; it does not estimate the performance on other images. The test split was not "
        "used: the next command evaluates on it."
    )


def _warn_of_spread(sweep: Sweep, best: pd.Series[Any]) -> list[str]:
    """Return sentences about how far the best trial stands out from the others."""
    scored, scores = sweep.scored, [float(each) for each in best["scores"]]
    ties = int((scored["score"] == best["score"]).sum())
    found = []
    if ties > 1:
        found.append(f"{ties} trials share the best score; the earliest of them is shown.")
    if len(scores) < 2:
        text = "Every trial is a single run: with other seeds the best trials may rank differently."
        return [*found, text] if len(scored) > 1 else found
    reached = scored["score"] >= min(scores)
    reached = reached if sweep.higher_is_better else scored["score"] <= max(scores)
    others = int(reached.sum()) - 1
    if others > 0:
        found.append(
            f"{format_count(others, 'other trial')} scored no worse than the worst run of the "
            "best trial: given the variation between seeds, any of them might be as good."
        )
    return found


def _warn_of_range_ends(sweep: Sweep, best: pd.Series[Any]) -> list[str]:
    """Return a sentence about values of the best trial within 5 % of an end of their range."""
    ends = []
    row = sweep.trials.loc[[best.name]]
    for entry in sweep.searched:
        low, high = entry.low, entry.high
        if not entry.is_range or low == high or not sweep.find_active(entry, row)[0]:
            continue
        scale = math.log if entry.log else float
        content = float(best[f"value/{entry.key}"])
        place = (scale(content) - scale(low)) / (scale(high) - scale(low))
        if not 0.05 < place < 0.95:
            end = "lower" if place <= 0.05 else "upper"
            ends.append(f"{entry.key} ({format_trial_value(entry, content)}, {end} end)")
    if not ends:
        return []
    text = f"The best value lies at the end of the searched range: {', '.join(ends)}."
    return [f"{text} A wider range may hold a better one."]


def _warn_of_budgets(sweep: Sweep, best: pd.Series[Any] | None) -> list[str]:
    if len(sweep.rungs) < 2:
        return []
    found = (
        "Trials had unequal budgets: most were stopped early. Scores of different budgets are "
        "not comparable; figures show the budgets separately, and importance is computed for a "
        "single one."
    )
    if best is not None and best["rung"] < sweep.rungs[-1]:
        found += f" The best trial itself trained {best['epochs']} epochs, not the full budget."
    return [found]


def _count_unfinished(sweep: Sweep) -> list[str]:
    words = {
        "failed": "failed",
        "killed": "killed",
        "running": "still running",
        "completed": "without a finite score",
    }
    counts = sweep.unscored["status"].value_counts()
    parts = [f"{counts[status]} {text}" for status, text in words.items() if status in counts]
    return [f"Of {len(sweep.trials)} trials: {', '.join(parts)}."] if parts else []


def describe_rung(sweep: Sweep, rung: int) -> str:
    """Return the name of a rung: the epochs of the trial that trained longest in it."""
    epochs = int(max(sweep.trials["epochs"][sweep.trials["rung"] == rung]))
    return format_count(epochs, "epoch")


def describe_best_values(sweep: Sweep, entry: HyperParameter, trials: pd.DataFrame) -> str:
    """Describe the best trials' values of a key: ``0.001 to 0.003``, or counts of choices."""
    good = select_best_trials(sweep, trials)
    values = format_used_values(sweep, entry, good)
    if not entry.is_range:
        counts = pd.Series(values).value_counts()
        return ", ".join(f"{name} {count}\N{MULTIPLICATION SIGN}" for name, count in counts.items())
    known = [text != NOT_USED for text in values]
    numbers = good[f"value/{entry.key}"][known].astype(float)
    if numbers.empty:
        return NOT_USED
    low, high = format_number(numbers.min()), format_number(numbers.max())
    return low if low == high else f"{low} to {high}"
