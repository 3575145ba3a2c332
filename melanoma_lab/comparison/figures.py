"""Figures of a comparison, narrow enough to be read on a phone and side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from melanoma_lab.comparison.compare import ArmSummary, Comparison, Difference, MetricSummary
from melanoma_lab.core.formatting import (
    LOWER_IS_BETTER,
    format_count,
    get_difference_unit,
    is_share,
    label_metric,
    label_split,
)
from melanoma_lab.plots import style
from melanoma_lab.reports.rendering import wrap_arm_name

#: Width of the figures, in inches.
WIDTH = 4.4
MARKERS = ("o", "s", "D", "^", "v", "P")
#: Colour and marker of a verdict; each alone suffices, also for colour-blind readers.
VERDICTS = {
    "helps": (style.BLUE, "^"),
    "hurts": (style.VERMILLION, "v"),
    "no evidence": (style.GREY, "o"),
    "too few runs": (style.GREY, "x"),
}


def select_forest_metrics(comparison: Comparison) -> list[str]:
    """Select the metrics with a forest plot; the one that decides about the verdicts is first."""
    others = ("macro_auroc", "log_loss", "generalisation_gap")
    of_class = comparison.positive_class_sensitivity
    return [
        metric
        for metric in dict.fromkeys((comparison.metric, *of_class, *others))
        if any(math.isfinite(entry.summary.mean) for entry in comparison.of_metric(metric))
    ]


def draw_difference_forest(comparison: Comparison, metric: str) -> Figure:
    """Draw every arm's difference from its reference in a metric, with its interval.

    Args:
        metric: one of ``select_forest_metrics``.
    """
    entries = comparison.of_metric(metric)
    references = dict.fromkeys(entry.reference for entry in entries)
    shared = comparison.arms[next(iter(references))].short if len(references) == 1 else ""
    labels = [
        wrap_arm_name(comparison.arms[entry.arm].short)
        + ("" if shared else f"\nvs {wrap_arm_name(comparison.arms[entry.reference].short)}")
        for entry in entries
    ]
    rows = _place_rows(labels)
    fig = style.new_figure(WIDTH, (1.55 if shared else 1.35) + rows[-1] + 0.2)
    ax = fig.add_subplot()
    factor = 100 if is_share(metric) else 1
    ax.axvline(0, color=style.GREY, linewidth=1)
    for y, entry in zip(rows, entries, strict=True):
        colour, marker = VERDICTS[entry.verdict]
        summary = entry.summary
        ax.plot(factor * summary.mean, y, marker, color=colour, markersize=7, markeredgewidth=2)
        if math.isfinite(summary.ci_low):
            ends = (factor * summary.ci_low, factor * summary.ci_high)
            ax.plot(ends, (y, y), color=colour, linewidth=2)
    _set_limits(ax, [factor * entry.summary.mean for entry in entries], entries, factor)
    _set_rows(ax, rows, labels)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    better = "left" if metric in LOWER_IS_BETTER else "right"
    words = [f"minus {wrap_arm_name(shared, 34)}\n" if shared else "difference, "]
    words += [
        "in points, " if get_difference_unit(metric) else "",
        f"{better} is better",
    ]
    style.style_axes(ax, label_metric(metric), "".join(words))
    style.add_footer(fig)
    return fig


def _set_limits(
    ax: Axes, means: Sequence[float], entries: Sequence[Difference], factor: float
) -> None:
    """Limit the x axis, so that the huge interval of only two seeds does not flatten the others."""
    ends = [
        abs(factor * end)
        for entry in entries
        for end in (entry.summary.ci_low, entry.summary.ci_high)
        if math.isfinite(end) and entry.verdict != "too few runs"
    ]
    reach = 1.12 * max([*ends, *(1.5 * abs(mean) for mean in means if math.isfinite(mean)), 1e-3])
    ax.set_xlim(-reach, reach)


def draw_arm_sensitivities(comparison: Comparison) -> Figure:
    """Draw every class's sensitivity in every arm with its interval, melanoma first."""
    slugs = [slug for slug in comparison.slugs if slug != comparison.positive_class]
    if comparison.positive_class:
        slugs.insert(0, comparison.positive_class)
    arms = list(comparison.arms.values())
    fig = style.new_figure(
        WIDTH, 0.9 + len(slugs) * (0.25 + 0.13 * len(arms)) + _compute_legend_height(comparison)
    )
    ax = fig.add_subplot()
    # Within a class's row of height one.
    offsets = np.linspace(-0.32, 0.32, len(arms)) if len(arms) > 1 else np.zeros(1)
    for i, (arm, offset) in enumerate(zip(arms, offsets, strict=True)):
        entries = [arm.metrics[f"sensitivity/{slug}"] for slug in slugs]
        _draw_intervals(ax, entries, np.arange(len(slugs)) + offset, i, wrap_arm_name(arm.short))
    for y in range(1, len(slugs)):
        ax.axhline(y - 0.5, color=style.LIGHT_GREY, linewidth=0.6)
    ax.set_yticks(range(len(slugs)), [style.format_class_name(slug, width=16) for slug in slugs])
    if comparison.positive_class:
        ax.get_yticklabels()[0].set_fontweight("bold")
    ax.set_ylim(len(slugs) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(-0.02, 1.02)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    judged = label_split(arms[0].runs[0].judged)
    style.style_axes(ax, "", f"sensitivity on {judged} lesions")
    style.draw_legend_above(fig, ax, _count_legend_columns)
    style.add_footer(fig)
    return fig


def draw_generalisation_gaps(comparison: Comparison) -> Figure:
    """Draw every arm's mean generalisation gap with its interval, and the gaps of its runs."""
    arms = list(comparison.arms.values())
    labels = [wrap_arm_name(arm.short) for arm in arms]
    rows = _place_rows(labels)
    fig = style.new_figure(WIDTH, 1.1 + rows[-1] + 0.2)
    ax = fig.add_subplot()
    ax.axvline(0, color=style.GREY, linewidth=1)
    for y, arm in zip(rows, arms, strict=True):
        runs = [run.estimates["generalisation_gap"].value for run in arm.runs]
        ax.plot(runs, np.full(len(runs), y + 0.08), "|", color=style.GREY, markersize=7)
        _draw_intervals(ax, [arm.metrics["generalisation_gap"]], np.array([y - 0.04]), 0, "")
    _set_rows(ax, rows, labels)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    style.style_axes(ax, "", "train minus val accuracy")
    style.add_footer(fig)
    return fig


def draw_mean_learning_curves(comparison: Comparison) -> Figure:
    """Draw accuracy by epoch: each arm's mean over its runs, and a band from minimum to maximum.

    Raises:
        ValueError: no run recorded any epoch.
    """
    fig = style.new_figure(WIDTH, 4.8 + _compute_legend_height(comparison))
    axes = fig.subplots(2, 1, sharex=True)
    titles = {"val_accuracy": "validation", "train_accuracy": "training, in training mode"}
    epochs = 0
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for i, arm in enumerate(comparison.arms.values()):
            curves = [run.curves[name] for run in arm.runs if run.curves[name]]
            if not curves:
                continue
            epochs = max(epochs, *map(len, curves))
            _draw_band(ax, curves, i, wrap_arm_name(arm.short))
        style.style_axes(ax, title, "epoch" if ax is axes[-1] else "", "accuracy")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.grid(axis="y", color=style.LIGHT_GREY, linewidth=0.6)
    if not epochs:
        raise ValueError("Expected learning curves of at least one run. Received none.")
    axes[0].set_xlim(1 - 0.02 * epochs, epochs + 0.02 * epochs)
    axes[0].xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
    style.draw_legend_above(fig, axes[0], _count_legend_columns)
    return fig


def draw_mean_confusion_matrix(comparison: Comparison, arm: ArmSummary) -> Figure:
    """Draw the confusion matrix of all runs of an arm together, in per cent of each true class."""
    slugs = comparison.slugs
    counts = np.sum([run.confusion for run in arm.runs], axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    name = wrap_arm_name(arm.short, 28)
    fig = style.new_figure(WIDTH, 2.0 + 0.44 * len(slugs) + 0.18 * name.count("\n"))
    ax = fig.add_subplot()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        ax.text(
            column,
            row,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=style.TICK_SIZE,
            color="white" if share > 0.55 else "black" if share >= 0.005 else "#767676",
            fontweight="bold" if row == column else "normal",
        )
    # Slanted labels have one line, or they would overlap; very long ones are cut.
    short = [style.format_class_name(s if len(s) <= 24 else f"{s[:22]}...") for s in slugs]
    ax.set_xticks(range(len(slugs)), short, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(slugs)), [style.format_class_name(slug, width=18) for slug in slugs])
    runs = format_count(len(arm.runs), "run")
    style.style_axes(ax, f"{name}\n{runs}", "predicted class", "true class")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    style.add_footer(fig)
    return fig


def _place_rows(labels: Sequence[str]) -> NDArray[np.float64]:
    """Compute the positions of rows from the top, in inches, by the height of their labels."""
    heights = np.array([0.16 + 0.15 * (label.count("\n") + 1) for label in labels])
    return np.asarray(np.cumsum(heights) - heights / 2, dtype=np.float64)


def _set_rows(ax: Axes, rows: NDArray[np.float64], labels: Sequence[str]) -> None:
    ax.set_yticks(rows, labels)
    ax.set_ylim(rows[-1] + 0.2, 0)
    ax.tick_params(axis="y", length=0)


def _draw_intervals(
    ax: Axes,
    entries: Sequence[MetricSummary],
    y: NDArray[np.float64],
    i: int,
    label: str,
) -> None:
    """Draw means with their intervals, in the colour and marker of the i-th arm."""
    mean, low, high = (
        np.array([getattr(entry, name) for entry in entries])
        for name in ("mean", "ci_low", "ci_high")
    )
    colour, marker = style.CYCLE[i % len(style.CYCLE)], MARKERS[i % len(MARKERS)]
    face = colour if i < len(MARKERS) else "white"  # hollow once all markers are used
    ax.hlines(y, low, high, color=colour, linewidth=1.8)
    ax.plot(mean, y, marker, color=colour, markerfacecolor=face, markersize=5.5, label=label)


def _draw_band(ax: Axes, curves: Sequence[Sequence[float]], i: int, label: str) -> None:
    """Draw mean, minimum and maximum over runs, which may have stopped at different epochs."""
    longest = max(map(len, curves))
    values = np.full((len(curves), longest), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    epochs = np.arange(1, longest + 1)
    colour = style.CYCLE[i % len(style.CYCLE)]
    dashes = style.DASHES[i % len(style.DASHES)]
    finite = np.ma.masked_invalid(values)
    ax.fill_between(
        epochs, finite.min(axis=0), finite.max(axis=0), color=colour, alpha=0.15, linewidth=0
    )
    ax.plot(epochs, finite.mean(axis=0), color=colour, linestyle=dashes, linewidth=1.8, label=label)


def _count_legend_columns(labels: Sequence[str]) -> int:
    """Return the number of columns of the legend: 2 if two names fit side by side, else 1."""
    return 1 if any("\n" in label for label in labels) or len(labels) == 1 else 2


def _compute_legend_height(comparison: Comparison) -> float:
    """Compute the height of the legend above a figure, in inches."""
    labels = [wrap_arm_name(arm.short) for arm in comparison.arms.values()]
    lines = sum(label.count("\n") + 1 for label in labels)
    return 0.2 + 0.17 * math.ceil(lines / _count_legend_columns(labels))
