"""Metrics, splits and their values as text: one wording for the terminal, pages and reports."""

from __future__ import annotations

import math

from melanoma_lab.core.metric_names import LOWER_IS_BETTER

UNDEFINED = "undefined"
MINUS = "\N{MINUS SIGN}"

_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_auroc": "macro AUROC",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "melanoma_sensitivity": "melanoma sensitivity",
    "melanoma_specificity": "melanoma specificity",
    "melanoma_auroc": "melanoma AUROC",
    "generalisation_gap": "generalisation gap",
}

#: Shares, which are read as per cent and whose differences are points.
_SHARES = frozenset(
    {
        "balanced_accuracy",
        "accuracy",
        "melanoma_sensitivity",
        "melanoma_specificity",
        "generalisation_gap",
    }
)


def label_metric(metric: str) -> str:
    """What a metric is called in a sentence."""
    if metric.startswith("sensitivity/"):
        return f"sensitivity to {metric.partition('/')[2].replace('_', ' ')}"
    return _NAMES.get(metric, metric)


def label_split(split: str) -> str:
    """What a split is called in a sentence."""
    return {"val": "validation"}.get(split, split)


def is_share(metric: str) -> bool:
    """Whether a metric is read in per cent and its differences in points."""
    return metric in _SHARES or metric.startswith("sensitivity/")


def format_metric(metric: str, value: float) -> str:
    """A metric's value: ``41.3 %`` or ``1.234``."""
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3f}"
    return text.replace("-", MINUS)


def format_difference(metric: str, value: float) -> str:
    """A difference with its sign: ``+2.1`` (points) or ``-0.034``."""
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"
    return text.replace("-", MINUS)


def format_p_value(p: float) -> str:
    """A p value for reading."""
    if not math.isfinite(p):
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def get_difference_unit(metric: str) -> str:
    """What a difference in a metric is counted in, for an axis or a column."""
    return "points" if is_share(metric) else ""


def describe_direction(metric: str) -> str:
    """Which way a metric is better."""
    return "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
