"""Figures of the clinical evaluation: the operating point and the decision curve.

Scores are calibrated probabilities of one class, float64 (n,); ``positive`` says which images are
of that class, bool (n,).
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.special import logit

from melanoma_lab.core.formatting import format_percent
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import OperatingPoint, decision_curve
from melanoma_lab.plots import style

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
"""Probabilities with a tick on an axis of log odds."""


def draw_operating_curve(
    positive: Bools,
    score: Floats,
    split: str,
    point: OperatingPoint,
    shown_as: str | None = None,
) -> Figure:
    """Draw sensitivity and specificity by threshold, and the operating point.

    Args:
        positive: bool, shape (n,); whether each image is of the class.
        score: float64, shape (n,); calibrated probability of the class.
        split: name of the images' split, for which ``point`` must have rates.
        point: the operating point, chosen on val.
        shown_as: name of the images in the title; None: the name of their split.
    """
    fig = style.new_figure(7.2, 5.0, by_hand=True)
    style.set_margins(fig, left=0.8, right=0.3, bottom=0.85, top=0.95)
    ax = fig.add_subplot()
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
        ax.plot(
            grid,
            1 - below if reached else below,
            color=colour,
            linestyle=dashes,
            linewidth=2,
            label=f"{what}: {_format_rate(rate)}" if not np.isnan(rate.value) else what,
        )
        # Next to each other, so that neither interval hides the other.
        _draw_rate(ax, chosen + (-0.06 if reached else 0.06), rate, colour)
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

    Args:
        positive: bool, shape (n,); whether each image is of the class.
        score: float64, shape (n,); calibrated probability of the class.
        groups: int64, shape (n,), not negative; the group of each image.
        split: name of the images in the title.
        slug: slug of the class.
    """
    fig = style.new_figure(7.2, 5.0, by_hand=True)
    style.set_margins(fig, left=0.85, right=0.3, bottom=0.85, top=0.7)
    ax = fig.add_subplot()
    name = style.format_class_name(slug)
    prevalence = float(positive.mean()) if len(positive) else float("nan")
    top = 0.1
    if positive.any():
        curve = decision_curve(positive, score, groups)
        x = curve.thresholds
        ax.fill_between(x, curve.low, curve.high, color=style.SKY, alpha=0.3, linewidth=0)
        ax.plot(
            x,
            curve.network,
            color=style.BLUE,
            linewidth=2,
            label="treat by this network, 95 % interval",
        )
        ax.plot(
            x,
            curve.everybody,
            color=style.ORANGE,
            linewidth=1.8,
            linestyle=style.DASHES[1],
            label="treat all",
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


def _draw_rate(ax: Axes, x: float, rate: IntervalEstimate, colour: str) -> None:
    """Draw a rate as a point with its interval, if it is defined."""
    if not np.isnan(rate.value):
        ax.errorbar(
            x,
            rate.value,
            yerr=[[rate.value - rate.low], [rate.high - rate.value]],
            fmt="o",
            color=colour,
            capsize=4,
            elinewidth=1.6,
            markersize=6,
            zorder=5,
        )


def _format_rate(rate: IntervalEstimate) -> str:
    return (
        f"{format_percent(rate.value)} ({format_percent(rate.low)} to {format_percent(rate.high)})"
    )


def _log_odds(probability: Floats) -> Floats:
    """Return log odds that are finite, also for the probabilities 0 and 1."""
    odds: Floats = logit(np.clip(probability, 1e-9, 1 - 1e-9))
    return odds
