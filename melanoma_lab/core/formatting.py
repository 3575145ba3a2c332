"""The names of metrics, and how metrics, numbers and lists are written everywhere in the same way.

The names are separate from the functions that compute the metrics, so that a name can be checked
without loading pandas, SciPy and scikit-learn.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

#: Metrics of every split, tracked as ``<split>/<name>``.
SPLIT_METRIC_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "macro_auroc",
    "macro_f1",
    "log_loss",
    "brier",
    "ece",
)
#: Metrics of val and test, if ``dataset.positive_class`` is set; their names begin with its slug.
POSITIVE_CLASS_METRICS = ("sensitivity", "specificity", "auroc")
#: Slugs that no positive class may have, because other metrics begin with them: ``macro_auroc``,
#: ``operating_point_sensitivity``.
RESERVED_SLUGS = frozenset({"macro", "operating_point"})
#: Metrics of which lower values are better; of all others, higher values are.
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "generalisation_gap"})
UNDEFINED = "undefined"
MINUS = "\N{MINUS SIGN}"

_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "generalisation_gap": "generalisation gap",
}

#: Metrics that are shown in per cent, and their differences in percentage points.
_SHARES = frozenset({"balanced_accuracy", "accuracy", "generalisation_gap"})


def slugify(name: str) -> str:
    """Return a class name in lower case with underscores, for names of columns and metrics.

    Letters and digits of every script stay, because MLflow allows them.
    """
    # Composed letters, because macOS decomposes é in file names.
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name).lower()).strip("_")


def name_positive_class_metrics(slug: str | None) -> tuple[str, ...]:
    """Return the names of the positive class's metrics, such as ``melanoma_sensitivity``.

    Args:
        slug: slug of the class; None, if there is no positive class: there are no such metrics.
    """
    return tuple(f"{slug}_{name}" for name in POSITIVE_CLASS_METRICS) if slug else ()


def split_positive_class_metric(metric: str) -> tuple[str, str] | None:
    """Split ``melanoma_auroc`` into ``melanoma`` and ``auroc``; None for any other metric."""
    slug, _, name = metric.rpartition("_")
    if name not in POSITIVE_CLASS_METRICS or not slug or slug in RESERVED_SLUGS:
        return None
    return slug, name


def higher_is_better(metric: str) -> bool:
    """Return whether higher values of a metric are better.

    Args:
        metric: name of the metric, with or without a split: ``"log_loss"``, ``"val/log_loss"``.
    """
    return metric.rpartition("/")[2] not in LOWER_IS_BETTER


def label_metric(metric: str) -> str:
    """Return the name of a metric for a sentence."""
    if metric.startswith("sensitivity/"):
        return f"sensitivity to {metric.partition('/')[2].replace('_', ' ')}"
    if of_class := split_positive_class_metric(metric):
        slug, name = of_class
        return f"{slug.replace('_', ' ')} {'AUROC' if name == 'auroc' else name}"
    return _NAMES.get(metric, metric)


def label_split(split: str) -> str:
    """Return the name of a split for a sentence."""
    return {"val": "validation"}.get(split, split)


def is_share(metric: str) -> bool:
    """Return whether a metric is shown in per cent, and its differences in percentage points."""
    of_class = split_positive_class_metric(metric)
    return (
        metric in _SHARES
        or metric.startswith("sensitivity/")
        or (of_class is not None and of_class[1] != "auroc")
    )


def format_metric(metric: str, value: float) -> str:
    """Format a metric's value: ``41.3 %`` or ``1.234``."""
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3f}"
    return text.replace("-", MINUS)


def format_difference(metric: str, value: float) -> str:
    """Format a difference in a metric with its sign: ``+2.1`` (points) or ``-0.034``."""
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"
    return text.replace("-", MINUS)


def format_p_value(p: float) -> str:
    """Format a p value: ``0.021`` or ``< 0.001``."""
    if not math.isfinite(p):
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_metric_interval(metric: str, value: float, low: float, high: float) -> str:
    """Format a metric's value with its interval: ``41.3 % [38.0, 44.6]``.

    Args:
        low: lower end of the interval; not finite if there is no interval.
    """
    text = format_metric(metric, value)
    if not math.isfinite(low):
        return text
    ends = (format_metric(metric, end).removesuffix(" %") for end in (low, high))
    return f"{text} [{', '.join(ends)}]"


def format_difference_interval(metric: str, value: float, low: float, high: float) -> str:
    """Format a difference with its interval: ``+2.1 [-0.3, +4.5]``.

    Args:
        low: lower end of the interval; not finite if there is no interval.
    """
    text = format_difference(metric, value)
    if not math.isfinite(low):
        return text
    return f"{text} [{format_difference(metric, low)}, {format_difference(metric, high)}]"


def format_percent(share: float, decimals: int = 1, *, strict: bool = False) -> str:
    """Format a share: ``41.3 %``.

    Args:
        strict: do not round other shares to 0 or 100 %: ``<0.1 %``, ``>99.9 %``.
    """
    least = 10.0**-decimals
    if strict and 0 < 100 * share < least:
        return f"<{least:.{decimals}f} %"
    if strict and 100 - least < 100 * share < 100:
        return f">{100 - least:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"


def format_number(value: float) -> str:
    """Format a number as in a configuration, to four digits: ``3e-5``, ``0.0312``, ``128``."""
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return re.sub(r"e([+-])0*", lambda found: f"e{found[1]}".replace("+", ""), f"{value:.4g}")


def format_duration(seconds: float) -> str:
    """Format an approximate duration: ``80 s``, ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def format_count(n: int, noun: str, plural: str = "") -> str:
    """Format a number of things: ``1 image``, ``2 images``.

    Args:
        plural: plural of the noun; empty: the noun with an ``s``.
    """
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"


def format_list(names: Iterable[object], limit: int = 3) -> str:
    """List the first few names for a message, and say how many more there are.

    Returns:
        A text such as ``a, b and c`` or ``a, b, c and 81 more``.
    """
    words = [truncate(name, 80) for name in names]
    if len(words) > limit:
        return f"{', '.join(words[:limit])} and {len(words) - limit:,} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def truncate(text: object, limit: int = 200) -> str:
    """Shorten a text from the user for a message, by default to a few lines."""
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def get_difference_unit(metric: str) -> str:
    """Return the unit of a difference in a metric, for an axis or a column; empty if none."""
    return "points" if is_share(metric) else ""


def describe_direction(metric: str) -> str:
    """Say whether lower or higher values of a metric are better."""
    return "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
