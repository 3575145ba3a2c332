"""Figures of the clinical evaluation: the operating point, the decision curve and subgroups."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.special import logit

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.evaluation.clinical_evaluation import ALL, FEW_LESIONS, FEW_POSITIVE
from melanoma_lab.evaluation.decision_rule import OperatingPoint, decision_curve
from melanoma_lab.plots import style

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
"""Probabilities with a tick on an axis of log odds."""


def draw_operating_curve(
    positive: Bools, score: Floats, split: str, point: OperatingPoint, shown_as: str | None = None
) -> Figure:
    """Draw sensitivity and specificity by threshold, and the operating point.

    ``positive``, bool (n,), says which images are of the class, and ``score``, float64 (n,), is its
    calibrated probability. ``point`` must have rates of the split; ``shown_as`` replaces the name
    of the split in the title.
    """
    fig, ax = style.new_axes(7.2, 5.0, left=0.8, right=0.3, bottom=0.85, top=0.95)
    name = style.format_class_name(point.slug)
    rates = point.rates[split]
    chosen = float(_log_odds(np.array(point.threshold)))
    low, high = logit(TICKS[0]), logit(TICKS[-1])
    if not np.isnan(chosen):
        low, high = min(low, chosen - 0.5), max(high, chosen + 0.5)
    grid = np.linspace(low, high, 400)
    log_odds = _log_odds(score)
    curves = (
        ("sensitivity", positive, rates.sensitivity, style.VERMILLION, "solid", True),
        ("specificity", ~positive, rates.specificity, style.BLUE, style.DASHES[1], False),
    )
    for what, among, rate, colour, dashes, reached in curves:
        if not among.any():
            continue
        below = np.searchsorted(np.sort(log_odds[among]), grid) / among.sum()
        share = 1 - below if reached else below
        label = what
        if not np.isnan(rate.value):
            value, low_end, high_end = map(format_percent, (rate.value, rate.low, rate.high))
            label = f"{what}: {value} ({low_end} to {high_end})"
        ax.plot(grid, share, color=colour, linestyle=dashes, linewidth=2, label=label)
        if not np.isnan(rate.value):
            ax.errorbar(
                # Next to each other, so that neither interval hides the other.
                chosen + (-0.06 if reached else 0.06),
                rate.value,
                yerr=[[rate.value - rate.low], [rate.high - rate.value]],
                fmt="o",
                color=colour,
                capsize=4,
                elinewidth=1.6,
                markersize=6,
                zorder=5,
            )
    if np.isnan(chosen):
        style.annotate_empty(ax, f"no threshold: val has no image of {name}")
    else:
        ax.axvline(chosen, color=style.GREY, linewidth=1, zorder=1)
    ax.axhline(point.target, color=style.GREY, linewidth=1, linestyle=":", zorder=1)
    ax.set(xlim=(low, high), ylim=(-0.01, 1.02))
    ax.set_xticks(logit(TICKS), [f"{100 * tick:g}%" for tick in TICKS])
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(color=style.LIGHT_GREY, linewidth=0.6)
    style.style_axes(
        ax, x=f"threshold on the calibrated probability of {name}", y="share of the images"
    )
    if len(positive):
        # Above the axes, because in each corner of the axes the curves of some run would hide it.
        ax.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=2,
            frameon=False,
            fontsize=style.TICK_SIZE,
        )
    result = (
        "no threshold was chosen"
        if np.isnan(chosen)
        else f"threshold {100 * point.threshold:.3g} %, chosen on val for a sensitivity of "
        f"{100 * point.target:g} %"
    )
    style.set_title(
        fig,
        f"Operating point for {name}, {shown_as or split} ({rates.positive_lesions:,} lesions, "
        f"{rates.n_lesions - rates.positive_lesions:,} others)",
        result,
    )
    style.add_footer(fig)
    return fig


def draw_decision_curve(
    positive: Bools, score: Floats, groups: NDArray[np.int64], split: str, slug: str
) -> Figure:
    """Draw the net benefit of treating by the score, of treating everybody and of nobody.

    ``positive`` and ``score`` are as for ``draw_operating_curve``; ``groups``, int64 (n,), not
    negative, is the group of each image.
    """
    fig, ax = style.new_axes(7.2, 5.0, left=0.85, right=0.3, bottom=0.85, top=0.7)
    name = style.format_class_name(slug)
    prevalence = float(positive.mean()) if len(positive) else float("nan")
    top = 0.1
    if positive.any():
        curve = decision_curve(positive, score, groups)
        x = curve.thresholds
        ax.fill_between(x, curve.low, curve.high, color=style.SKY, alpha=0.3, linewidth=0)
        label = "treat by this network, 95 % interval"
        ax.plot(x, curve.network, color=style.BLUE, linewidth=2, label=label)
        dashes, label = style.DASHES[1], "treat all"
        ax.plot(
            x, curve.everybody, color=style.ORANGE, linewidth=1.8, linestyle=dashes, label=label
        )
        ax.axhline(
            0, color=style.BLACK, linewidth=1.2, linestyle=style.DASHES[2], label="treat none"
        )
        top = float(max(np.nanmax(curve.high), curve.network.max(), prevalence))
        ax.legend(loc="upper right", framealpha=0.9, edgecolor="none", fontsize=style.TICK_SIZE)
    else:
        style.annotate_empty(ax, f"no image of {name} in {split}")
    ax.set(xlim=(0, 0.6), ylim=(-0.25 * top, 1.06 * top))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(color=style.LIGHT_GREY, linewidth=0.6)
    style.style_axes(
        ax,
        x=f"threshold probability of {name} for treatment",
        y="net benefit (true positives per image)",
    )
    positives = f"{format_percent(prevalence)} {name}"
    share = "" if np.isnan(prevalence) else f", {positives}: not a clinic's prevalence"
    style.set_title(fig, f"Decision curve, {split}", f"{len(positive):,} images{share}")
    style.add_footer(fig)
    return fig


def _log_odds(probability: Floats) -> Floats:
    """Return log odds that are finite, also for the probabilities 0 and 1."""
    odds: Floats = logit(np.clip(probability, 1e-9, 1 - 1e-9))
    return odds


MOST_ROWS = 12
"""The most subgroups of a column to draw; the smaller ones are only in the table."""


def draw_subgroup_forest(
    table: pd.DataFrame, point: OperatingPoint | None, shown_as: str | None = None
) -> Figure:
    """Draw the metrics of each subgroup and of all images, with their intervals.

    Args:
        table: the table that ``measure_subgroups`` returned, with at least one row.
        point: the operating point; None if the dataset names no positive class, and then only
            balanced accuracy is drawn.
        shown_as: name of the images in the title; None: the name of their split.
    """
    rows, left_out = _select_largest(table)
    panels = [("balanced_accuracy", "balanced accuracy", style.BLUE)]
    if point is not None and not np.isnan(point.threshold):
        panels += [
            (
                "sensitivity",
                f"{style.format_class_name(point.slug)}\nsensitivity",
                style.VERMILLION,
            ),
            ("specificity", f"{style.format_class_name(point.slug)}\nspecificity", style.GREEN),
        ]
    # A gap before the first subgroup of every column.
    starts = np.flatnonzero((rows["column"] != rows["column"].shift()).to_numpy())
    y = np.arange(len(rows)) + 0.7 * np.searchsorted(starts, np.arange(len(rows)), side="right")
    names = [_format_row_name(row) for _, row in rows.iterrows()]
    left = 0.15 + style.estimate_text_width(names, style.TICK_SIZE)
    fig = style.new_figure(left + 0.2 + 2.0 * len(panels), 2.0 + 0.27 * (y[-1] + 1), by_hand=True)
    axes = np.atleast_1d(fig.subplots(1, len(panels), sharey=True))
    style.set_margins(fig, left=left, right=0.3, bottom=0.65, top=1.2, between=0.3)
    for ax, (metric, title, colour) in zip(axes, panels, strict=True):
        _draw_panel(ax, rows, y, metric, colour)
        style.style_axes(ax, title=title)
    axes[0].set_yticks(y, names)
    axes[0].set_ylim(y[-1] + 0.8, y[0] - 0.8)
    in_brackets = (
        "lesions" if point is None else f"lesions, {style.format_class_name(point.slug)} lesions"
    )
    more = f"; {left_out} smaller: subgroups.csv" if left_out else ""
    style.set_title(
        fig,
        f"Subgroups ({in_brackets}), {shown_as or rows['split'].iloc[0]}, with 95 % intervals",
        f"hollow: few lesions, or a class is missing{more}",
    )
    style.add_footer(fig)
    return fig


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, y: NDArray[np.float64], metric: str, colour: str
) -> None:
    """Draw one metric of every subgroup, with a line at the value of all images."""
    value = rows[metric].to_numpy(np.float64)
    few = rows["n_lesions"].to_numpy() < FEW_LESIONS
    if metric == "sensitivity":
        few = rows["n_melanoma_lesions"].to_numpy(np.int64) < FEW_POSITIVE
    if metric == "balanced_accuracy":
        few |= rows["n_classes"].to_numpy() < rows["n_classes"].iloc[0]
    ax.axvline(value[0], color=style.GREY, linewidth=1, linestyle=":", zorder=1)
    for hollow in (False, True):
        shown = (few == hollow) & ~np.isnan(value)
        if not shown.any():
            continue
        bounds = rows.loc[shown, [f"{metric}_low", f"{metric}_high"]].to_numpy(np.float64).T
        ax.errorbar(
            value[shown],
            y[shown],
            xerr=np.abs(bounds - value[shown]),
            fmt="o",
            color=colour,
            markerfacecolor="white" if hollow else colour,
            elinewidth=1.2,
            markersize=5,
            alpha=0.75 if hollow else 1.0,
        )
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    ax.grid(axis="x", color=style.LIGHT_GREY, linewidth=0.6)
    ax.tick_params(axis="y", length=0)


def _select_largest(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the largest subgroups of each column, in order, and the number of the others."""
    rank = table.groupby("column")["n_lesions"].rank(method="first", ascending=False)
    return table[rank <= MOST_ROWS].reset_index(drop=True), int((rank > MOST_ROWS).sum())


def _format_row_name(row: pd.Series) -> str:
    prefix = "" if row["column"] in (ALL, row["value"]) else f"{row['column']}: "
    positive = row["n_melanoma_lesions"]
    lesions = (
        f"{row['n_lesions']:,}" if pd.isna(positive) else f"{row['n_lesions']:,}, {positive:,}"
    )
    return f"{prefix}{style.format_class_name(row['value'][:40])}  ({lesions})"
