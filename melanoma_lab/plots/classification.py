"""Figures of the predictions of one split: confusion matrix, curves and reliability diagram.

Every function takes ``y_true``, int64 (n,), and ``y_score``, float64 (n, K), as the metrics do, and
the slugs of the classes in class order where it names them. ``split`` is its name for the title,
and the class ``positive_class`` is emphasised, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.metrics import roc_curve as sklearn_roc_curve

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.decision_rule import Temperature
from melanoma_lab.plots import style

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


def draw_confusion_matrix(
    y_true: Labels, y_score: Scores, slugs: Sequence[str], split: str
) -> Figure:
    """Draw counts by true and predicted class, coloured by their share of the true class.

    The colours of the diagonal show the classes' sensitivities. Rows of absent classes stay white.
    """
    k = len(slugs)
    counts = metrics.confusion_matrix(y_true, y_score)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    names = [style.format_class_name(slug) for slug in slugs]
    rows = [
        f"{name}  ({n:,})" if n else f"{name}  (absent)"
        for name, n in zip(names, totals, strict=True)
    ]
    # Sizes are in inches.
    side = max(3.0, 0.58 * k)
    left = 0.45 + style.estimate_text_width(rows, style.TICK_SIZE)
    slanted = 0.7 * style.estimate_text_width(names, style.TICK_SIZE)
    bottom, top, right = 0.6 + (0.4 if k <= 3 else slanted), 0.75, 1.1
    width, height = left + side + right, bottom + side + top
    fig, ax = style.new_axes(width, height, left=left, right=right, bottom=bottom, top=top)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 11 if k <= 12 else 9
    for row, column in np.ndindex(k, k):
        share = shares[row, column]
        ax.text(
            column,
            row,
            f"{counts[row, column]:,}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share > 0.55 else "black" if counts[row, column] else "#A0A0A0",
            fontweight="bold" if row == column else "normal",
        )
    style.style_axes(ax, x="predicted class", y="true class")
    if k <= 3:
        ax.set_xticks(range(k), [style.format_class_name(slug, width=14) for slug in slugs])
    else:
        ax.set_xticks(range(k), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(k), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # Lines instead of minor ticks, because each tick would be drawn separately.
    between = np.arange(k + 1) - 0.5
    ax.hlines(between, -0.5, k - 0.5, color=style.LIGHT_GREY, linewidth=0.8)
    ax.vlines(between, -0.5, k - 0.5, color=style.LIGHT_GREY, linewidth=0.8)
    cax = fig.add_axes(((left + side + 0.12) / width, bottom / height, 0.22 / width, side / height))
    bar = fig.colorbar(image, cax=cax, format=PercentFormatter(1.0))
    bar.set_label(
        "share of the true class (diagonal: sensitivity)" if k > 4 else "share of the true class",
        fontsize=style.LABEL_SIZE,
    )
    bar.ax.tick_params(labelsize=style.TICK_SIZE, color=style.GREY)
    bar.ax.spines[:].set_visible(False)
    style.set_title(
        fig,
        f"Confusion matrix, {split} ({len(y_true):,} images)",
        f"accuracy {style.format_metric_value(metrics.accuracy(y_true, y_score))}, balanced "
        f"accuracy {style.format_metric_value(metrics.balanced_accuracy(y_true, y_score))}",
    )
    style.add_footer(fig)
    return fig


def draw_roc_curves(
    y_true: Labels,
    y_score: Scores,
    slugs: Sequence[str],
    split: str,
    positive_class: str | None = None,
) -> Figure:
    """Draw a one-vs-rest ROC curve for every class that has positives and negatives."""
    areas = metrics.auroc(y_true, y_score)

    def curve(positive: NDArray[np.bool_], score: Scores) -> tuple[Scores, Scores]:
        false_positive_rate, true_positive_rate, _ = sklearn_roc_curve(positive, score)
        return false_positive_rate, true_positive_rate

    fig, ax = _draw_one_vs_rest(
        y_true=y_true,
        y_score=y_score,
        slugs=slugs,
        positive_class=positive_class,
        areas=areas,
        area_name="AUROC",
        curve=curve,
    )
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":", zorder=1)
    style.style_axes(ax, x="1 - specificity", y="sensitivity")
    macro = style.format_metric_value(metrics.macro_auroc(y_true, y_score))
    style.set_title(fig, f"ROC curves, one class against the rest, {split}", f"macro AUROC {macro}")
    return fig


def draw_precision_recall_curves(
    y_true: Labels,
    y_score: Scores,
    slugs: Sequence[str],
    split: str,
    positive_class: str | None = None,
) -> Figure:
    """Draw a one-vs-rest precision-recall curve for every class that has positives and negatives.

    Average precision is the step-wise sum that scikit-learn computes. For a classifier at chance it
    equals the class's prevalence, which the legend shows.
    """
    n_positive = np.bincount(y_true, minlength=len(slugs))
    areas = np.full(len(slugs), np.nan)
    for k in np.flatnonzero((n_positive > 0) & (n_positive < len(y_true))):
        areas[k] = average_precision_score(y_true == k, y_score[:, k])

    def curve(positive: NDArray[np.bool_], score: Scores) -> tuple[Scores, Scores]:
        precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
        return recall, precision

    fig, ax = _draw_one_vs_rest(
        y_true=y_true,
        y_score=y_score,
        slugs=slugs,
        positive_class=positive_class,
        areas=areas,
        area_name="AP",
        curve=curve,
        steps="steps-post",  # the area under these steps is the average precision
    )
    style.style_axes(ax, x="sensitivity (recall)", y="positive predictive value (precision)")
    if positive_class is not None and np.isfinite(areas[slugs.index(positive_class)]):
        prevalence = n_positive[slugs.index(positive_class)] / len(y_true)
        ax.axhline(prevalence, color=style.VERMILLION, linewidth=1, linestyle=":", zorder=1)
    defined = areas[np.isfinite(areas)]
    macro = style.format_metric_value(defined.mean() if defined.size else float("nan"))
    style.set_title(
        fig,
        f"Precision-recall curves, one class against the rest, {split}",
        f"macro average precision {macro}",
    )
    return fig


def _draw_one_vs_rest(
    *,
    y_true: Labels,
    y_score: Scores,
    slugs: Sequence[str],
    positive_class: str | None,
    areas: NDArray[np.float64],
    area_name: str,
    curve: Callable[[NDArray[np.bool_], Scores], tuple[Scores, Scores]],
    steps: str = "default",
) -> tuple[Figure, Axes]:
    """Draw one curve for each class, and a legend with areas and prevalences.

    ``areas``, float64 (K,), are those under the curves; a class whose area is NaN gets no curve.
    ``curve`` returns x and y of one class from labels, bool (n,), and scores, float64 (n,).
    """
    longest = max(map(len, slugs))
    width, height = 7.0 + 0.08 * longest, max(5.2, 1.2 + 0.205 * len(slugs))
    left, side = 0.75, 3.75  # inches
    right, spare = width - left - side, height - side - 1.5
    bottom, top = 0.85 + spare / 2, 0.65 + spare / 2
    fig, ax = style.new_axes(width, height, left=left, right=right, bottom=bottom, top=top)
    ordinary = 0
    for k, slug in enumerate(slugs):
        positive = y_true == k
        name = style.format_class_name(slug)
        if np.isnan(areas[k]):
            why = "absent" if not positive.any() else "no other class"
            ax.plot([], [], color="none", label=f"{name}: {why}")
            continue
        if slug == positive_class:
            line_style: dict[str, Any] = {
                "color": style.VERMILLION,
                "linestyle": "solid",
                "linewidth": 3.0,
                "zorder": 4,
            }
        else:
            dashes = style.DASHES[ordinary // len(style.CYCLE) % len(style.DASHES)]
            line_style = {
                "color": style.CYCLE[ordinary % len(style.CYCLE)],
                "linestyle": dashes,
                "linewidth": 1.5,
                "zorder": 3,
            }
            ordinary += 1
        label = (
            f"{name}: {style.format_metric_value(areas[k])}  ({positive.sum():,}, "
            f"{format_percent(positive.mean())})"
        )
        ax.plot(*curve(positive, y_score[:, k]), drawstyle=steps, label=label, **line_style)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.grid(color=style.LIGHT_GREY, linewidth=0.6)
    if not y_true.size:
        style.annotate_empty(ax, "no images")
    legend = fig.legend(
        loc="center left",
        bbox_to_anchor=((left + side + 0.1) / width, 0.5),
        frameon=False,
        fontsize=style.TICK_SIZE,
        title=f"class: {area_name}  (images, prevalence)",
        title_fontsize=style.TICK_SIZE,
        alignment="left",
        handlelength=2.6,
    )
    for text, slug in zip(legend.get_texts(), slugs, strict=True):
        if slug == positive_class:
            text.set_fontweight("bold")
    style.add_footer(fig)
    return fig, ax


def draw_reliability_diagram(
    y_true: NDArray[np.int64],
    y_score: NDArray[np.float64],
    split: str,
    temperature: Temperature | None = None,
) -> Figure:
    """Draw accuracy against confidence in 15 bins, with 95 % Wilson intervals, and the counts.

    A temperature that was fitted adds a second curve: the probabilities after calibration.
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
