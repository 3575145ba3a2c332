"""Put metrics, numbers and lists into words: alike on the terminal, in pages and in reports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

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


def format_metric_interval(metric: str, value: float, low: float, high: float) -> str:
    """Format a metric's value with its interval: ``41.3 % [38.0, 44.6]``.

    Args:
        metric: its name, without a split.
        value: the metric's.
        low: the interval's lower end; not finite if there is no interval.
        high: its upper end.
    """
    text = format_metric(metric, value)
    if not math.isfinite(low):
        return text
    ends = (format_metric(metric, end).removesuffix(" %") for end in (low, high))
    return f"{text} [{', '.join(ends)}]"


def format_difference_interval(metric: str, value: float, low: float, high: float) -> str:
    """Format a difference with its interval: ``+2.1 [-0.3, +4.5]``; see the other one's Args."""
    text = format_difference(metric, value)
    if not math.isfinite(low):
        return text
    return f"{text} [{format_difference(metric, low)}, {format_difference(metric, high)}]"


def format_percent(share: float, decimals: int = 1, *, strict: bool = False) -> str:
    """Format a share: ``41.3 %``.

    Args:
        share: from 0 to 1.
        decimals: digits after the point.
        strict: a share that is neither 0 nor 1 never reads so: ``<0.1 %``, ``>99.9 %``.
    """
    least = 10.0**-decimals
    if strict and 0 < 100 * share < least:
        return f"<{least:.{decimals}f} %"
    if strict and 100 - least < 100 * share < 100:
        return f">{100 - least:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"


def format_number(value: float, digits: int = 4) -> str:
    """Format a number as a configuration takes it: ``3e-5``, ``0.0312``, ``128``.

    Args:
        value: finite.
        digits: significant ones of a number that is not whole.
    """
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return re.sub(
        r"e([+-])0*", lambda found: f"e{found[1]}".replace("+", ""), f"{value:.{digits}g}"
    )


def format_duration(seconds: float) -> str:
    """Format a time that is only roughly known: ``80 s``, ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def format_count(n: int, noun: str, plural: str = "") -> str:
    """Format a number of things: ``1 image``, ``2 images``.

    Args:
        n: how many.
        noun: what one of them is called.
        plural: what several are called; the noun with an ``s`` if left out.
    """
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"


def format_list(names: Iterable[object], limit: int = 3) -> str:
    """List the first few names for a message, and say how many more there are.

    Args:
        names: all of them; each is shortened if it is very long.
        limit: of names that are listed.

    Returns:
        Such as ``a, b and c`` or ``a, b, c and 81 more``.
    """
    words = [truncate(name, 80) for name in names]
    if len(words) > limit:
        return f"{', '.join(words[:limit])} and {len(words) - limit:,} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def truncate(text: object, limit: int = 200) -> str:
    """Shorten what the user gave, for a message: not longer than a few lines."""
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def get_difference_unit(metric: str) -> str:
    """What a difference in a metric is counted in, for an axis or a column."""
    return "points" if is_share(metric) else ""


def describe_direction(metric: str) -> str:
    """Which way a metric is better."""
    return "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
