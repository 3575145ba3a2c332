"""The forest plot of metrics by subgroup."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma_lab.evaluation.clinical_evaluation import ALL, FEW_LESIONS, FEW_POSITIVE
from melanoma_lab.evaluation.decision_rule import OperatingPoint
from melanoma_lab.plots import style

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
