"""The reliability diagram: accuracy by confidence."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import binomtest

from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.decision_rule import Temperature
from melanoma_lab.plots import style


def draw_reliability_diagram(
    y_true: NDArray[np.int64],
    y_score: NDArray[np.float64],
    split: str,
    temperature: Temperature | None = None,
) -> Figure:
    """Draw accuracy against confidence in 15 bins, with 95 % Wilson intervals, and the counts.

    Args:
        y_true: int64, shape (n,); index of the true class.
        y_score: float64, shape (n, K); probabilities that the network returned.
        split: name of the split.
        temperature: temperature for a second curve after calibration; None, or one that was not
            fitted: no second curve.
    """
    fig = style.new_figure(5.6, 6.4, by_hand=True)
    ax, count_ax = fig.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    style.set_margins(fig, left=0.75, right=0.25, bottom=0.85, top=0.7, between=0.15)
    style.style_axes(ax, y="accuracy")
    style.style_axes(count_ax, x="confidence (probability of the predicted class)", y="images")
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":", label="calibrated")
    bins = metrics.reliability_bins(y_true, y_score)
    result = (
        f"ECE {style.format_metric_value(metrics.ece(y_true, y_score))} ({len(y_true):,} images)"
    )
    if y_true.size:
        _draw_points(
            ax,
            bins,
            "this network, with 95 % intervals",
            marker="o",
            colour=style.BLUE,
            bars=style.SKY,
        )
    else:
        style.annotate_empty(ax, f"no images in {split}")
    count_ax.bar(
        bins.edges[:-1],
        bins.counts,
        width=np.diff(bins.edges),
        align="edge",
        color=style.SKY,
        edgecolor="white",
    )
    if y_true.size and temperature is not None and not temperature.why_not:
        calibrated = temperature.apply(y_score)
        after = metrics.reliability_bins(y_true, calibrated)
        name = f"after temperature {temperature.value:.2f}, from val"
        _draw_points(ax, after, name, marker="D", colour=style.VERMILLION, bars=style.ORANGE)
        count_ax.stairs(after.counts, after.edges, color=style.VERMILLION, linewidth=1.4)
        result += (
            f"; after calibration {style.format_metric_value(metrics.ece(y_true, calibrated))}"
        )
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    ax.grid(color=style.LIGHT_GREY, linewidth=0.6)
    # The legend is placed on the side of the diagonal without points.
    underconfident = (
        y_true.size and (y_score.argmax(axis=1) == y_true).mean() > y_score.max(axis=1).mean()
    )
    ax.legend(
        loc="lower right" if underconfident else "upper left",
        framealpha=0.9,
        edgecolor="none",
        fontsize=style.TICK_SIZE,
    )
    count_ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    style.set_title(fig, f"Reliability, {split}", result)
    style.add_footer(fig)
    return fig


def _draw_points(
    ax: Axes, bins: metrics.ReliabilityBins, name: str, *, marker: str, colour: str, bars: str
) -> None:
    """Draw the bins that have images as points with Wilson intervals."""
    filled = np.flatnonzero(bins.counts)
    intervals = [
        binomtest(int(bins.correct[i]), int(bins.counts[i])).proportion_ci(method="wilson")
        for i in filled
    ]
    middle = bins.accuracy[filled]
    # By a rounding error, the interval may not contain the estimate; errorbar refuses that.
    below = np.maximum(middle - [interval.low for interval in intervals], 0)
    above = np.maximum([interval.high for interval in intervals] - middle, 0)
    ax.errorbar(
        bins.confidence[filled],
        middle,
        yerr=(below, above),
        fmt=marker,
        color=colour,
        ecolor=bars,
        elinewidth=1.6,
        markersize=5,
        label=name,
    )
