"""The files of a sweep's report: ``report.html``, ``report.md``, ``trials.csv`` and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from melanoma_lab.core.files import replace_file
from melanoma_lab.core.formatting import format_count, format_list, format_percent
from melanoma_lab.core.version import __version__
from melanoma_lab.reports.rendering import (
    ReportFigure,
    encode_png,
    render_template,
    write_report_figures,
)
from melanoma_lab.tuning import sweep_text
from melanoma_lab.tuning.importance import (
    FOLDS,
    MIN_TRIALS,
    REPEATS,
    TREES,
    Importance,
    rank_hyperparameters,
    select_comparable_trials,
)
from melanoma_lab.tuning.sweep import N_BLUE, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The number of trials that the Markdown report lists; the page and ``trials.csv`` have all.
LISTED: Final = 20
#: Trials without a score that are named for each reason.
N_NAMED: Final = 6


def write_search_report(sweep: Sweep, folder: Path) -> Path:
    """Write a sweep's report, always the same for a sweep; return the path of its page."""
    importance = rank_hyperparameters(sweep)
    pictures = draw_search_figures(sweep, importance)
    write_report_figures(folder, pictures)
    replace_file(folder / "trials.csv", format_trials_csv(sweep))
    content = _build_content(sweep, importance) | {"pictures": pictures}
    for name in ("report.md", "report.html"):
        replace_file(folder / name, render_template("melanoma_lab.tuning", name, content))
    return folder / "report.html"


def draw_search_figures(sweep: Sweep, importance: Importance) -> list[ReportFigure]:
    """Draw all figures for which the sweep has data; none if no trial has a score."""
    if sweep.scored.empty:
        return []
    from melanoma_lab.tuning import figures

    drawn = []

    def add(name: str, section: str, alt: str, figure: Figure) -> None:
        drawn.append(ReportFigure(name, section, alt, encode_png(figure)))

    score = sweep_text.label_score(sweep)
    alt = f"{score} of every trial in the order in which they started, and the best so far"
    add("best_so_far", "history", alt, figures.draw_score_history(sweep))
    order = [effect.key for effect in importance.effects]
    order += [entry.key for entry in sweep.searched if entry.key not in order]
    varied = [key for key in order if key not in importance.constant]
    if varied:
        alt = (
            f"Parallel coordinates: the values of {', '.join(varied)} in every trial, and its "
            f"{score}"
        )
        lines = figures.draw_parallel_coordinates(sweep, varied)
        add("parallel_coordinates", "parallel", alt, lines)
    if importance.effects:
        alt = "Share of the differences between trials that each hyperparameter accounts for"
        add("importance", "importance", alt, figures.draw_importance(importance))
    by_key = {entry.key: entry for entry in sweep.searched}
    for i, key in enumerate(order, start=1):
        scores = figures.draw_scores_by_value(sweep, by_key[key])
        add(f"hyperparameter_{i}", "values", f"{score} of the trials by {key}", scores)
    return drawn


def format_trials_csv(sweep: Sweep) -> str:
    """Format the trials as CSV, in the order in which they began; lists as JSON, no rounding."""
    table = sweep.trials.sort_values("number")
    return table.map(_serialize_cell).to_csv(index=False, lineterminator="\n")


def _serialize_cell(cell: object) -> object:
    if not isinstance(cell, list | tuple):
        return cell
    return json.dumps(cell, ensure_ascii=False, default=lambda number: number.item())


def _build_content(sweep: Sweep, importance: Importance) -> dict[str, Any]:
    """Build the variables of the templates of both reports."""
    scored = sweep.scored
    repeated = bool((scored["scores"].map(len) > 1).any())
    return {
        "sweep": sweep,
        "version": __version__,
        "facts": _list_facts(sweep),
        "answer": sweep_text.summarize_search(sweep),
        "found": sweep.best is not None,
        "best_rows": _best_rows(sweep),
        "untuned": bool(sweep.untuned),
        "cautions": sweep_text.list_cautions(sweep),
        "score_name": sweep_text.label_score(sweep),
        "compared": sweep_text.describe_rung(sweep, importance.rung)
        if importance.rung >= 0
        else "",
        "importance": importance,
        "importance_rows": _importance_rows(sweep, importance),
        "explained": format_percent(importance.explained, 0),
        "chance": format_percent(importance.chance),
        "constants": {"trees": TREES, "folds": FOLDS, "repeats": REPEATS, "least": MIN_TRIALS},
        "unscored_rows": _unscored_rows(sweep),
        "cost_rows": _cost_rows(sweep),
        "trial_head": _trial_head(sweep, repeated),
        "trial_rows": _trial_rows(sweep, repeated),
        "listed": LISTED,
        "n_blue": N_BLUE,
    }


def _list_facts(sweep: Sweep) -> list[str]:
    """Summarise the sweep in short phrases."""
    n = len(sweep.trials)
    return [
        f"study {sweep.study}",
        f"{format_count(n, 'trial')}, {len(sweep.scored)} with a score",
        f"search {sweep.algorithm}, seed {sweep.seed}",
        sweep.budget,
        *(f"{name} {text}" for name, text in sweep.data.items()),
    ]


def _best_rows(sweep: Sweep) -> list[list[str]]:
    """Return a row for each hyperparameter: its best value, its untuned value, its range."""
    best = sweep.best
    if best is None:
        return []
    rows = []
    for entry in sweep.searched:
        key = entry.key
        cells = [
            key,
            sweep_text.format_used_values(sweep, entry, sweep.trials.loc[[best.name]])[0],
        ]
        if sweep.untuned:
            known = key in sweep.untuned
            cells.append(sweep_text.format_trial_value(entry, sweep.untuned[key]) if known else "")
        rows.append([*cells, sweep_text.describe_searched_values(entry)])
    return rows


def _importance_rows(sweep: Sweep, importance: Importance) -> list[list[str]]:
    by_key = {entry.key: entry for entry in sweep.searched}
    trials, _ = select_comparable_trials(sweep)
    return [
        [
            effect.key,
            "yes" if effect.matters else "no evidence",
            format_percent(max(effect.share, 0)),
            sweep_text.describe_best_values(sweep, by_key[effect.key], trials),
        ]
        for effect in importance.effects
    ]


def _unscored_rows(sweep: Sweep) -> list[list[str]]:
    """Return a row for each reason why trials have no score, the most frequent first."""
    unscored = sweep.unscored
    reasons = unscored["reason"].map(lambda reason: " ".join(str(reason).split()) or "not recorded")
    rows = [
        [str(reason), str(status), str(len(group)), format_list(group, N_NAMED)]
        for (reason, status), group in unscored["number"].groupby([reasons, unscored["status"]])
    ]
    return sorted(rows, key=lambda row: -int(row[2]))


def _cost_rows(sweep: Sweep) -> list[list[str]]:
    """Return the time and steps of trials by status, by budget, in total and of the best trial."""
    trials = sweep.trials
    parts = [(str(status), group) for status, group in trials.groupby("status")]
    if len(sweep.rungs) > 1:
        parts += [
            (f"of {sweep_text.describe_rung(sweep, rung)}", trials[trials["rung"] == rung])
            for rung in sweep.rungs
        ]
    parts = parts if len(parts) > 1 else []
    parts.append(("all trials", trials))
    if sweep.best is not None:
        parts.append(("the best trial", trials.loc[[sweep.best.name]]))
    return [
        [
            name,
            str(len(group)),
            f"{group['seconds'].sum():,.0f}",
            f"{group['seconds'].sum() / 3600:,.1f}",
            f"{group['steps'].sum():,.0f}",
        ]
        for name, group in parts
    ]


def _trial_head(sweep: Sweep, repeated: bool) -> list[str]:
    return [
        "trial",
        "score",
        *(["each run"] if repeated else []),
        *(entry.key for entry in sweep.searched),
        *("epochs", "seconds", "status"),
    ]


def _trial_rows(sweep: Sweep, repeated: bool) -> list[list[str]]:
    """Return a row for each trial, the best first and those without a score last."""
    ranked = sweep.scored.sort_values("score", ascending=not sweep.higher_is_better, kind="stable")
    trials = sweep.trials.loc[[*ranked.index, *sweep.unscored.index]]
    columns: list[Sequence[str]] = [[str(number) for number in trials["number"]]]
    columns.append([_format_score(sweep, score) for score in trials["score"]])
    if repeated:
        columns.append(
            [" ".join(_format_score(sweep, each) for each in scores) for scores in trials["scores"]]
        )
    columns += [sweep_text.format_used_values(sweep, entry, trials) for entry in sweep.searched]
    columns.append([str(epochs) for epochs in trials["epochs"]])
    columns.append(
        [f"{seconds:,.0f}" if pd.notna(seconds) else "" for seconds in trials["seconds"]]
    )
    columns.append([str(status) for status in trials["status"]])
    return [list(cells) for cells in zip(*columns, strict=True)]


def _format_score(sweep: Sweep, score: float) -> str:
    return sweep_text.format_score(sweep, score) if pd.notna(score) else ""
