"""Figures of a sweep, narrow enough to be read on a phone and side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from melanoma_lab.core.formatting import is_share
from melanoma_lab.plots import style
from melanoma_lab.tuning import scales, sweep_text
from melanoma_lab.tuning.importance import Importance, encode_values, select_comparable_trials
from melanoma_lab.tuning.search_space import HyperParameter
from melanoma_lab.tuning.sweep import Sweep, select_best_trials, track_best

#: Width of the figures, in inches.
WIDTH = 4.4
#: Colour and marker of each Hyperband rung, smallest budget first; higher rungs share the last.
RUNGS = (
    *((style.SKY, "v"), (style.GREEN, "s"), (style.ORANGE, "P")),
    *((style.BLUE, "o"), (style.BLACK, "^")),
)


def draw_score_history(sweep: Sweep) -> Figure:
    """Draw every trial's score in the order in which trials began, and the best score so far.

    Raises:
        ValueError: no trial has a score.
    """
    table = track_best(sweep)
    fig = style.new_figure(WIDTH, 3.4)
    ax = fig.add_subplot()
    _draw_trials(ax, sweep, sweep.scored, sweep.scored["number"].to_numpy(float))
    ax.step(
        table["number"],
        table["best"],
        where="post",
        color=style.VERMILLION,
        linewidth=1.8,
        label="best so far",
        zorder=3,
    )
    if sweep.best is not None:
        _mark_best(ax, float(sweep.best["number"]), float(sweep.best["score"]))
    _style_score_axis(ax, sweep)
    lost = table["number"][table["score"].isna()]
    if len(lost):  # marks along the x axis: these trials have no height
        ax.plot(
            lost,
            np.full(len(lost), 0.015),
            "x",
            color=style.GREY,
            markersize=4,
            transform=ax.get_xaxis_transform(),
            label="without a score",
        )
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    style.style_axes(ax, "", "trial", sweep_text.label_score(sweep))
    style.draw_legend_above(fig, ax, _count_legend_columns)
    return fig


def draw_scores_by_value(sweep: Sweep, entry: HyperParameter) -> Figure:
    """Draw the trials' scores over their values of one searched key.

    Raises:
        ValueError: no trial has a score.
    """
    scored = sweep.scored
    places = encode_values(sweep, entry, scored)
    counts = ~np.isnan(places)
    fig = style.new_figure(WIDTH, 3.1 if _list_rungs(sweep) else 2.8)
    ax = fig.add_subplot()
    if not entry.is_range:
        compared = scored.index.isin(select_comparable_trials(sweep)[0].index) & counts
        _draw_medians(ax, entry, places[compared], scored["score"].to_numpy(float)[compared])
    places = places + scales.jitter(
        scored["number"].to_numpy(float), scales.get_jitter_width(entry)
    )
    shown = scored[counts]
    _draw_trials(ax, sweep, shown, places[counts])
    best = sweep.best
    if best is not None and best.name in shown.index:
        _mark_best(ax, float(places[scored.index.get_loc(best.name)]), float(best["score"]))
    _style_score_axis(ax, sweep)
    _style_value_axis(ax, entry)
    style.style_axes(ax, scales.clean_figure_text(entry.key, 42), "", sweep_text.label_score(sweep))
    if not len(shown):
        style.annotate_empty(ax, "used by no trial that has a score")
    elif len(shown) < len(scored):
        ax.set_xlabel(f"{len(shown)} of {len(scored)} trials use it", fontsize=style.LABEL_SIZE)
    if _list_rungs(sweep):
        style.draw_legend_above(fig, ax, _count_legend_columns)
    return fig


def draw_parallel_coordinates(sweep: Sweep, order: Sequence[str]) -> Figure:
    """Draw every trial as a line through its values of several keys, down to its score.

    The coordinates are stacked vertically, so that any number of them fits a phone. Trials of
    ``select_best_trials`` are blue, the best one is vermillion.

    Raises:
        ValueError: no trial has a score.
    """
    trials, _ = select_comparable_trials(sweep)
    if trials.empty:
        raise ValueError("Expected at least one trial with a score. Received none.")
    by_key = {entry.key: entry for entry in sweep.searched}
    drawn = [by_key[key] for key in order]
    best = sweep.best
    if best is not None and best.name not in trials.index:
        trials = sweep.scored.loc[[*trials.index, best.name]]
    lines = np.column_stack(
        [
            *(scales.compute_parallel_positions(sweep, entry, trials) for entry in drawn),
            scales.compute_score_positions(sweep, trials),
        ]
    )
    good = set(select_best_trials(sweep, trials)["number"])
    fig = style.new_figure(WIDTH, 0.7 + 0.68 * lines.shape[1])
    ax = fig.add_subplot()
    depth = np.arange(lines.shape[1])
    faint = float(np.clip(40 / len(trials), 0.12, 0.9))
    for number, line in zip(trials["number"], lines, strict=True):
        if best is not None and number == best["number"]:
            look: dict[str, Any] = {"color": style.VERMILLION, "linewidth": 2.4, "zorder": 4}
        elif number in good:
            look = {"color": style.BLUE, "linewidth": 1.1, "alpha": 0.75, "zorder": 3}
        else:
            look = {"color": "#9A9A9A", "linewidth": 0.8, "alpha": faint, "zorder": 2}
        ax.plot(line, depth, **look)
    for y, entry in enumerate(drawn):
        name, marks = scales.clean_figure_text(entry.key, 48), scales.line_ticks(entry)
        _draw_coordinate(ax, y, name, marks, aside=bool(entry.when))
    _draw_coordinate(
        ax, depth[-1], sweep_text.label_score(sweep), scales.score_ticks(sweep), aside=False
    )
    ax.set_ylim(len(depth) - 0.55, -0.45)
    ax.set_xlim(scales.ASIDE - 0.05, 1.05)
    ax.set_axis_off()
    return fig


def draw_importance(result: Importance) -> Figure:
    """Draw the share that each hyperparameter accounts for, and that chance alone gives."""
    effects = result.effects
    fig = style.new_figure(WIDTH, 1.2 + 0.36 * len(effects))
    ax = fig.add_subplot()
    chance = 100 * max(result.chance, 0)
    ax.axvspan(0, chance, color=style.LIGHT_GREY, label="no more than chance", linewidth=0)
    ax.axvline(0, color=style.GREY, linewidth=1)
    for matters, colour, label in (
        (True, style.BLUE, "matters"),
        (False, style.GREY, "no evidence"),
    ):
        places = [y for y, effect in enumerate(effects) if effect.matters == matters]
        if places:
            shares = [100 * max(effects[y].share, 0) for y in places]
            ax.barh(places, shares, height=0.55, color=colour, label=label, zorder=2)
    ax.set_yticks(range(len(effects)), [_wrap_key(effect.key) for effect in effects])
    ax.set_ylim(len(effects) - 0.5, -0.5)
    ax.set_xlim(0, 1.08 * max(chance, *(100 * effect.share for effect in effects)))
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    style.style_axes(ax, "", "% of the variance between trials")
    style.draw_legend_above(fig, ax, _count_legend_columns)
    return fig


def _list_rungs(sweep: Sweep) -> list[int]:
    """Return the rungs of the trials with a score; none if all have the same budget."""
    rungs = sorted(set(sweep.scored["rung"]))
    return [int(rung) for rung in rungs] if len(rungs) > 1 else []


def _draw_trials(ax: Axes, sweep: Sweep, trials: pd.DataFrame, x: NDArray[np.float64]) -> None:
    """Draw trials as points, and as triangles at the axis's end if their score lies beyond it."""
    low, high = scales.score_limits(sweep)
    scores = trials["score"].to_numpy(float)
    shown = np.clip(scores, low, high)
    size, alpha = (14, 0.45) if len(sweep.scored) > 200 else (26, 0.75)
    beyond = shown != scores
    several = _list_rungs(sweep)
    for rung in several or [int(each) for each in sweep.scored["rung"].unique()]:
        rows = ~beyond & (trials["rung"] == rung).to_numpy()
        colour, marker = RUNGS[min(rung, len(RUNGS) - 1)] if several else (style.BLUE, "o")
        ax.scatter(
            x[rows],
            shown[rows],
            s=size,
            color=colour,
            marker=marker,
            alpha=alpha,
            linewidths=0,
            label=sweep_text.describe_rung(sweep, rung) if several else "trial",
        )
    if beyond.any():
        marker = "v" if sweep.higher_is_better else "^"
        ax.scatter(
            x[beyond],
            shown[beyond],
            s=size,
            marker=marker,
            facecolors="none",
            edgecolors=style.GREY,
            linewidths=0.9,
            label="beyond the axis",
        )


def _mark_best(ax: Axes, x: float, score: float) -> None:
    ax.plot(
        x,
        score,
        "D",
        color=style.VERMILLION,
        markersize=7,
        markeredgecolor="white",
        zorder=4,
        label="best",
    )


def _draw_medians(
    ax: Axes, entry: HyperParameter, places: NDArray[np.float64], scores: NDArray[np.float64]
) -> None:
    """Draw a short line at the median score of each choice."""
    for place in range(len(entry.labels)):
        if (places == place).any():
            median = np.median(scores[places == place])
            ax.hlines(median, place - 0.36, place + 0.36, color=style.BLACK, linewidth=1.6)


def _style_score_axis(ax: Axes, sweep: Sweep) -> None:
    low, high = scales.score_limits(sweep)
    room = 0.06 * (high - low) or 0.01 * max(abs(high), 1)
    ax.set_ylim(low - room, high + room)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    share = is_share(sweep_text.get_objective_metric(sweep))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{100 * y:g} %" if share else f"{y:g}")
    )
    ax.grid(axis="y", color=style.LIGHT_GREY, linewidth=0.6)


def _style_value_axis(ax: Axes, entry: HyperParameter) -> None:
    """Scale the x axis to the whole searched range, in the numbers of ``encode_values``."""
    ticks = scales.choose_axis_ticks(entry)
    ax.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    low, high = scales.get_axis_ends(entry)
    room = 0.04 * (high - low) if entry.is_range else 0.5
    ax.set_xlim(low - (room or 0.5), high + (room or 0.5))
    if sum(len(text) for _, text in ticks) > 44:
        ax.tick_params(axis="x", rotation=30)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")


def _draw_coordinate(
    ax: Axes, y: float, name: str, ticks: Sequence[tuple[float, str]], *, aside: bool
) -> None:
    """Draw one coordinate: a line from 0 to 1 with its name above and its labels below.

    Args:
        ticks: places on the line from 0 to 1, and their labels.
        aside: whether to label the place left of the line for trials without a value.
    """
    ax.hlines(y, 0, 1, color=style.BLACK, linewidth=1, zorder=5)
    halo = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6}
    look: dict[str, Any] = {"zorder": 6, "bbox": halo}
    ax.text(0, y - 0.1, name, va="bottom", fontsize=style.TICK_SIZE, fontweight="bold", **look)
    look |= {"va": "top", "fontsize": style.NOTE_SIZE}
    for place, text in ticks:
        ax.plot((place, place), (y, y + 0.07), color=style.BLACK, linewidth=1, zorder=5)
        ax.text(place, y + 0.1, text, ha="center", **look)
    if aside:
        ax.text(scales.ASIDE, y + 0.1, "not used", ha="center", color=style.GREY, **look)


def _wrap_key(key: str) -> str:
    """Break a long dotted key after its last dot."""
    head, _, tail = scales.clean_figure_text(key, 48).rpartition(".")
    return f"{head}.\n{tail}" if head and len(key) > 20 else scales.clean_figure_text(key, 48)


def _count_legend_columns(labels: Sequence[str]) -> int:
    """Return the number of columns of the legend: 3 if three short names fit, else 2."""
    return 3 if len(labels) <= 3 and sum(map(len, labels)) < 36 else 2
